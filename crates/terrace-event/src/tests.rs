//! Loops of the tests' own, with real descriptors, threads and clocks.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker, ready};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

fn run<T>(test: impl Future<Output = T>) -> T {
    EventLoop::new(|_| {}).unwrap().block_on(test)
}

fn pair() -> (Source<UnixStream>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (Source::new(near).unwrap(), far)
}

async fn read(source: &Source<UnixStream>, buf: &mut [u8]) -> usize {
    poll_fn(|cx| {
        loop {
            ready!(source.poll_read_ready(cx));
            if let Ok(n) = source.try_read(|mut s| s.read(buf)) {
                return Poll::Ready(n);
            }
        }
    })
    .await
}

/// Ready once `flag` is set; somebody else must wake the task.
async fn until(flag: &Cell<bool>, waker: &RefCell<Option<Waker>>) {
    poll_fn(|cx| {
        waker.replace(Some(cx.waker().clone()));
        if flag.get() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn a_thread_has_one_loop_at_a_time() {
    let first = EventLoop::new(|_| {}).unwrap();
    assert!(EventLoop::new(|_| {}).is_err());
    drop(first);
    assert_eq!(run(async { 7 }), 7);
}

#[test]
fn tasks_run_beside_the_main_future_and_wake_each_other() {
    run(async {
        let (flag, waker) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(None)));
        let (set, woken) = (Rc::clone(&flag), Rc::clone(&waker));
        spawn(async move {
            yield_now().await;
            set.set(true);
            let waker: Option<Waker> = woken.take();
            waker.expect("somebody waits").wake();
        });
        until(&flag, &waker).await;
    });
}

#[test]
fn another_thread_wakes_a_task_that_sleeps_in_the_kernel() {
    for _ in 0..100 {
        let shared: Arc<Mutex<(bool, Option<Waker>)>> = Arc::default();
        let caller = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut shared = caller.lock().unwrap();
            shared.0 = true;
            if let Some(waker) = shared.1.take() {
                waker.wake();
            }
        });
        run(poll_fn(|cx| {
            let mut shared = shared.lock().unwrap();
            shared.1 = Some(cx.waker().clone());
            if shared.0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        thread.join().unwrap();
    }
}

#[test]
fn a_waker_outlives_its_task_and_its_loop() {
    let kept = Rc::new(RefCell::new(None));
    run(async {
        let place = Rc::clone(&kept);
        spawn(async move { poll_fn(|cx| Poll::Ready(_ = place.replace(Some(cx.waker().clone())))).await });
        yield_now().await;
        // Its key may be another task's by now, which is not woken for it.
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        spawn(poll_fn(move |_| {
            counted.set(counted.get() + 1);
            Poll::Pending
        }));
        yield_now().await;
        kept.borrow().as_ref().map(Waker::wake_by_ref);
        yield_now().await;
        assert_eq!(polls.get(), 1);
    });
    let waker = kept.take().unwrap();
    thread::spawn(move || waker.wake()).join().unwrap();
}

#[test]
fn timers_fire_in_their_order_and_not_early() {
    run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let begun = Instant::now();
        for ms in [30, 10, 20] {
            let order = Rc::clone(&order);
            spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                assert!(begun.elapsed() >= Duration::from_millis(ms));
                order.borrow_mut().push(ms);
            });
        }
        sleep(Duration::from_millis(40)).await;
        assert_eq!(*order.borrow(), [10, 20, 30]);
    });
}

#[test]
fn a_timer_moves_and_a_dropped_one_is_gone() {
    run(async {
        let mut far = Box::pin(sleep(Duration::from_secs(3600)));
        assert!(poll_fn(|cx| Poll::Ready(far.as_mut().poll(cx))).await.is_pending());
        far.as_mut().reset(Instant::now() + Duration::from_millis(1));
        far.as_mut().await;
        assert!(far.is_elapsed());
        assert_eq!(timeout(Duration::from_millis(1), pending::<()>()).await, Err(Elapsed));
        assert_eq!(timeout(Duration::MAX, async { 1 }).await, Ok(1));
        assert_eq!(core::with_current(|c| c.timers.next()), Some(None));
    });
}

#[test]
fn an_aborted_task_is_dropped_at_once() {
    run(async {
        let held = Rc::new(());
        let inside = Rc::clone(&held);
        let task = spawn(async move {
            let _inside = inside;
            pending::<()>().await;
        });
        yield_now().await;
        assert_eq!(Rc::strong_count(&held), 2);
        task.abort();
        task.abort();
        assert_eq!(Rc::strong_count(&held), 1);
    });
}

#[test]
fn a_panic_ends_its_task_only() {
    run(async {
        let held = Rc::new(());
        let inside = Rc::clone(&held);
        spawn(async move {
            let _inside = inside;
            yield_now().await;
            panic!("of the test");
        });
        while Rc::strong_count(&held) > 1 {
            yield_now().await;
        }
    });
}

#[test]
fn the_loop_drops_its_tasks_and_those_they_start_meanwhile() {
    struct Starts(Rc<Cell<u32>>);
    impl Drop for Starts {
        fn drop(&mut self) {
            let left = self.0.get();
            if left > 0 {
                self.0.set(left - 1);
                let next = Starts(Rc::clone(&self.0));
                spawn(async move {
                    let _next = next;
                    pending::<()>().await;
                });
            }
        }
    }
    let left = Rc::new(Cell::new(3));
    run(async {
        let first = Starts(Rc::clone(&left));
        spawn(async move {
            let _first = first;
            pending::<()>().await;
        });
        yield_now().await;
    });
    assert_eq!((left.get(), Rc::strong_count(&left)), (0, 1));
}

#[test]
fn a_source_tells_of_data_of_the_end_and_of_room() {
    run(async {
        let (near, mut far) = pair();
        assert!(near.try_read(|mut s| s.read(&mut [0; 8])).is_err());
        let writer = thread::spawn(move || {
            far.write_all(b"hello").unwrap();
            far
        });
        let mut buf = [0; 16];
        assert_eq!(read(&near, &mut buf).await, 5);
        // The socket is empty: nothing is known of more.
        near.clear_read();
        assert!(!near.may_read());
        let mut far = writer.join().unwrap();
        // Until there is no room.
        let mut sent = 0;
        while let Ok(n) = near.try_write(|mut s| s.write(&[0; 65_536])) {
            sent += n;
        }
        assert!(!near.may_write());
        let reader = thread::spawn(move || {
            far.read_exact(&mut vec![0; sent]).unwrap();
            far
        });
        poll_fn(|cx| near.poll_write_ready(cx)).await;
        // Data and the end come as one event; the end stays known when the data has been read.
        let mut far = reader.join().unwrap();
        far.write_all(b"!").unwrap();
        drop(far);
        assert_eq!(read(&near, &mut buf).await, 1);
        near.clear_read();
        assert_eq!(read(&near, &mut buf).await, 0);
    });
}

#[test]
fn a_task_that_always_finds_something_lets_others_run() {
    run(async {
        let (near, mut far) = pair();
        far.write_all(b"x").unwrap();
        let greedy = spawn(async move {
            // Never reads, so it is always ready.
            loop {
                poll_fn(|cx| near.poll_read_ready(cx)).await;
            }
        });
        for _ in 0..10 {
            yield_now().await;
        }
        sleep(Duration::from_millis(2)).await;
        greedy.abort();
    });
}

#[test]
fn a_descriptor_that_was_taken_off_goes_to_another_loop() {
    let (near, mut far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let near = run(async { Source::new(near).unwrap().into_inner().unwrap() });
    far.write_all(b"x").unwrap();
    run(async {
        let near = Source::new(near).unwrap();
        assert_eq!(read(&near, &mut [0; 4]).await, 1);
    });
    assert!(Source::new(far).is_err(), "the thread has no loop");
}
