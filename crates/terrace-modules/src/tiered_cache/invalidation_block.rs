//! `cache_invalidation name { … }`: changes that are heard of from Kafka. Every node hears each message for its L1; with a
//! `group`, one node of the fleet has its effect on L2 done, and the offset is committed after that.

use std::sync::Arc;

use terrace_conf::{ConfError, Node, Position};
use terrace_http::Builder;
use terrace_kafka::mapping::{Condition, Path, Rule, Target, Template};
use terrace_kafka::{ConsumerOptions, Role};

use super::{IN_INVALIDATION, IN_ON, is_name};

/// The consumers of one block.
#[derive(Clone)]
pub(super) struct InvalidationSpec {
    pub(super) name: Arc<str>,
    pub(super) brokers: Vec<String>,
    pub(super) topics: Vec<String>,
    pub(super) group: Option<String>,
    pub(super) properties: Vec<(String, String)>,
    pub(super) rules: Vec<Rule>,
    /// Where each rule names its cache.
    pub(super) named_at: Vec<Position>,
}

/// All of them, in their order.
#[derive(Default)]
pub(super) struct Invalidations(pub(super) Vec<InvalidationSpec>);

impl InvalidationSpec {
    /// Options of the consumer for this node, or of the one for the fleet if there is a group.
    pub(super) fn consumers(&self) -> Vec<ConsumerOptions> {
        let group = self.group.clone().map(Role::Group);
        let roles = [Some(Role::EveryNode), group].into_iter().flatten();
        let options = |role| ConsumerOptions {
            properties: self.properties.clone(),
            ..ConsumerOptions::new(self.brokers.clone(), self.topics.clone(), role)
        };
        roles.map(options).collect()
    }

    /// Whether the consumers of another generation may go on.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.brokers, &self.topics, &self.group, &self.properties, &self.rules)
            == (&other.brokers, &other.topics, &other.group, &other.properties, &other.rules)
    }
}

/// A block being read, and the rule being read in it.
#[derive(Default)]
struct Draft {
    brokers: Vec<String>,
    topics: Vec<String>,
    group: Option<String>,
    properties: Vec<(String, String)>,
    rules: Vec<Rule>,
    named_at: Vec<Position>,
    rule: RuleDraft,
}

#[derive(Default)]
struct RuleDraft {
    cache: Option<(String, Position)>,
    target: Option<Target>,
    refresh: Option<bool>,
    version: Option<Path>,
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?;
    if !is_name(name) {
        return Err(node.error(format!("invalid cache invalidation name \"{name}\"")));
    }
    if b.state::<Invalidations>().0.iter().any(|it| *it.name == *name) {
        return Err(node.error(format!("duplicate cache invalidation \"{name}\"")));
    }
    *b.state::<Draft>() = Draft::default();
    b.nested(IN_INVALIDATION, node)?;
    let Draft { brokers, topics, group, properties, rules, named_at, .. } =
        std::mem::take(b.state::<Draft>());
    let missing = [("brokers", brokers.is_empty()), ("topic", topics.is_empty()), ("on", rules.is_empty())];
    if let Some((what, _)) = missing.iter().find(|(_, missing)| *missing) {
        return Err(node.end_error(format!("no \"{what}\" in cache invalidation \"{name}\"")));
    }
    let name = name.into();
    let spec = InvalidationSpec { name, brokers, topics, group, properties, rules, named_at };
    b.state::<Invalidations>().0.push(spec);
    Ok(())
}

/// `on field=value … { … }`
pub(super) fn set_on(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut conditions = Vec::with_capacity(node.args.len());
    for arg in &node.args {
        conditions.push(Condition::parse(arg.text()?).map_err(|error| node.error(error.to_string()))?);
    }
    b.state::<Draft>().rule = RuleDraft::default();
    b.nested(IN_ON, node)?;
    let draft = b.state::<Draft>();
    let rule = std::mem::take(&mut draft.rule);
    let missing = |what: &str| node.end_error(format!("no \"{what}\" in the block \"on\""));
    let (cache, at) = rule.cache.ok_or_else(|| missing("cache"))?;
    let target = rule.target.ok_or_else(|| missing("key"))?;
    draft.rules.push(Rule {
        conditions,
        cache: cache.into(),
        target,
        refresh: rule.refresh.unwrap_or(false),
        version: rule.version,
    });
    draft.named_at.push(at);
    Ok(())
}

pub(super) fn set_brokers(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    append_texts(&mut b.state::<Draft>().brokers, node)
}

pub(super) fn set_topic(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    append_texts(&mut b.state::<Draft>().topics, node)
}

fn append_texts(list: &mut Vec<String>, node: &Node) -> Result<(), ConfError> {
    for arg in &node.args {
        list.push(arg.text()?.to_owned());
    }
    Ok(())
}

pub(super) fn set_group(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.state::<Draft>().group, node.text(0)?.to_owned())
}

pub(super) fn set_property(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let property = (node.text(0)?.to_owned(), node.text(1)?.to_owned());
    b.state::<Draft>().properties.push(property);
    Ok(())
}

pub(super) fn set_cache(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let cache = (node.text(0)?.to_owned(), node.at.clone());
    node.set_once(&mut b.state::<Draft>().rule.cache, cache)
}

pub(super) fn set_key(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    set_target(b, node, Target::Key)
}

pub(super) fn set_key_prefix(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    set_target(b, node, Target::Prefix)
}

pub(super) fn set_tag(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    set_target(b, node, Target::Tag)
}

fn set_target(b: &mut Builder, node: &Node, make: fn(Template) -> Target) -> Result<(), ConfError> {
    let template = Template::parse(node.text(0)?).map_err(|error| node.error(error.to_string()))?;
    let target = &mut b.state::<Draft>().rule.target;
    if target.is_some() {
        return Err(node.error("a block \"on\" has one of \"key\", \"key_prefix\" and \"tag\""));
    }
    *target = Some(make(template));
    Ok(())
}

pub(super) fn set_action(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let refresh = node.one_of(0, &[("drop", false), ("refresh", true)])?;
    node.set_once(&mut b.state::<Draft>().rule.refresh, refresh)
}

pub(super) fn set_version(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = Path::parse(node.text(0)?).map_err(|error| node.error(error.to_string()))?;
    node.set_once(&mut b.state::<Draft>().rule.version, path)
}
