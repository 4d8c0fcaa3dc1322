//! Who hears what: members of one group share, nodes without a group all hear everything.

use e2e::stack::Kafka;

use crate::hub::*;

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_no_message_is_lost() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic(kafka, 4), unique("group"));
    let options = group_options(brokers(kafka), &topic, &group);
    let (a, b) = (Recorder::new(), Recorder::new());

    let first = start(options.clone(), &a);
    publish(kafka, &topic, 4, 0..200).await;
    until("the first member does all", || a.distinct().len() == 200).await;

    let second = start(options.clone(), &b);
    until_stats("the second member has its share", &second, |s| s.partitions == 2).await;
    until_stats("the first member has the rest", &first, |s| s.partitions == 2).await;
    assert!(first.stats().rebalances > 1);
    publish(kafka, &topic, 4, 200..400).await;
    let both = || a.distinct().union(&b.distinct()).count();
    until("both do all", || both() == 400).await;
    assert!(b.distinct().len() >= 100);

    // Goes in the middle of its work.
    publish(kafka, &topic, 4, 400..1_400).await;
    first.stop().await;
    publish(kafka, &topic, 4, 1_400..1_500).await;
    until("the second member does the rest", || both() == 1_500).await;
    until_stats("it has all partitions", &second, |s| s.partitions == 4 && s.lag == 0).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_under_way_are_abandoned_with_their_partition_and_done_by_its_new_owner() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic(kafka, 2), unique("group"));
    let options = group_options(brokers(kafka), &topic, &group);
    let (stuck, healthy) = (Recorder::new(), Recorder::new());
    stuck.fail(true);
    let first = start(options.clone(), &stuck);
    publish(kafka, &topic, 2, 0..20).await;
    until_stats("both partitions are stuck", &first, |s| s.waiting == 18 && s.effect_failures > 2).await;

    let second = start(options, &healthy);
    until("the new owner does its half", || healthy.distinct().len() == 10).await;
    until_stats("the old owner forgets that half", &first, |s| s.waiting == 9).await;
    first.stop().await;
    until("the new owner does the rest", || healthy.distinct().len() == 20).await;
    assert!(stuck.seen().is_empty());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_hears_all_messages_also_of_a_topic_that_comes_later() {
    let kafka = Kafka::shared();
    let name = unique("later");
    let (a, b) = (Recorder::new(), Recorder::new());
    let first = start(node_options(brokers(kafka), &name), &a);
    let second = start(node_options(brokers(kafka), &name), &b);
    until_stats("the topic is missed", &first, |s| s.client_errors > 0).await;
    kafka.create_topic(&name, 3);
    publish(kafka, &name, 3, 0..90).await;
    let all = keys(0..90).into_iter().collect();
    until("both hear all", || a.distinct() == all && b.distinct() == all).await;
    // From its start on, and a little before.
    let c = Recorder::new();
    let third = start(node_options(brokers(kafka), &name), &c);
    until("the newcomer hears what is young", || c.distinct() == all).await;
    publish(kafka, &name, 3, 90..91).await;
    until("all hear the news", || [&a, &b, &c].iter().all(|r| r.distinct().contains(&key(90)))).await;
    for node in [first, second, third] {
        until_stats("the lag is gone", &node, |s| s.partitions == 3 && s.lag == 0).await;
        node.stop().await;
    }
}
