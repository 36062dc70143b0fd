//! The deadlines of a system's calls. Nearly all calls end long before theirs, so that beginning and ending must be cheap and
//! running out may cost a little: a few lists, each under its own short lock, and one task that sleeps until the earliest, where a
//! timer of the runtime for each call took a third of an ask (`examples/throughput.rs`).
//!
//! 1. A call whose deadline is over is woken at most [`RESOLUTION`] later.
//! 2. Registering earlier than what is being slept for wakes the task; nothing else does.

use crate::ActorError;
use parking_lot::Mutex;
use slab::Slab;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Deadlines so near to each other may be seen at once.
const RESOLUTION: Duration = Duration::from_millis(1);

/// Threads that call at the same time mostly have lists of their own.
const SHARDS: usize = 8;

pub(crate) struct Deadlines {
    shards: [Shard; SHARDS],
    /// For the task: there is an earlier one, or no system any more.
    earlier: Arc<Notify>,
}

/// Apart from its neighbours in the caches.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<State>);

#[derive(Default)]
struct State {
    calls: Slab<Call>,
    /// What the task sleeps until at the latest, as far as these calls go; `None` if there were none.
    planned: Option<Instant>,
}

thread_local! {
    /// The list that calls of this thread go to.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

struct Call {
    deadline: Instant,
    /// `None` once it was woken.
    waker: Option<Waker>,
}

impl Deadlines {
    pub(crate) fn start(runtime: &Handle) -> Arc<Self> {
        let earlier = Arc::new(Notify::new());
        let deadlines = Arc::new(Self { shards: Default::default(), earlier: Arc::clone(&earlier) });
        runtime.spawn(watch(Arc::downgrade(&deadlines), earlier));
        deadlines
    }

    fn register(&self, deadline: Instant, waker: Waker) -> (usize, usize) {
        let shard = SHARD.with(|shard| *shard);
        let mut state = self.shards[shard].0.lock();
        let key = state.calls.insert(Call { deadline, waker: Some(waker) });
        let is_earlier = state.planned.is_none_or(|planned| deadline < planned);
        if is_earlier {
            state.planned = Some(deadline);
        }
        drop(state);
        if is_earlier {
            self.earlier.notify_one();
        }
        (shard, key)
    }

    /// Wakes those whose deadline is over; what to sleep until next.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut wakers = Vec::new();
        let mut earliest: Option<Instant> = None;
        for Shard(state) in &self.shards {
            let mut state = state.lock();
            let mut next: Option<Instant> = None;
            for (_, call) in &mut state.calls {
                if call.deadline <= now {
                    wakers.extend(call.waker.take());
                } else if next.is_none_or(|next| call.deadline < next) {
                    next = Some(call.deadline);
                }
            }
            // Not before the clock has moved on, however many deadlines there are in between.
            state.planned = next.map(|next| next.max(now + RESOLUTION));
            earliest = [earliest, state.planned].into_iter().flatten().min();
        }
        wakers.into_iter().for_each(Waker::wake);
        earliest
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.earlier.notify_one();
    }
}

async fn watch(deadlines: Weak<Deadlines>, earlier: Arc<Notify>) {
    loop {
        let Some(next) = deadlines.upgrade().map(|deadlines| deadlines.expire(Instant::now())) else { return };
        match next {
            None => earlier.notified().await,
            Some(next) => {
                tokio::select! {
                    () = earlier.notified() => {}
                    () = sleep_until(next) => {}
                }
            }
        }
    }
}

/// The deadline of one call, from when it first had to wait.
#[derive(Default)]
pub(crate) struct Deadline(Option<(Arc<Deadlines>, (usize, usize))>);

impl Deadline {
    /// Ready when the deadline is over.
    pub(crate) fn poll(&mut self, of: &Arc<Deadlines>, deadline: Instant, waker: &Waker) -> Poll<()> {
        let Some((deadlines, (shard, key))) = &self.0 else {
            self.0 = Some((Arc::clone(of), of.register(deadline, waker.clone())));
            return Poll::Pending;
        };
        let mut state = deadlines.shards[*shard].0.lock();
        match &mut state.calls[*key].waker {
            None => Poll::Ready(()),
            Some(known) => {
                known.clone_from(waker);
                Poll::Pending
            }
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some((deadlines, (shard, key))) = self.0.take() {
            let call = deadlines.shards[shard].0.lock().calls.remove(key);
            drop(call);
        }
    }
}

pin_project_lite::pin_project! {
    /// A future that ends by its deadline, for calls over links.
    pub(crate) struct Within<F> {
        deadlines: Arc<Deadlines>,
        deadline: Instant,
        late: Deadline,
        #[pin]
        future: F,
    }
}

impl Deadlines {
    /// `future`, or [`ActorError::Deadline`] if it takes too long.
    pub(crate) fn within<F>(self: &Arc<Self>, deadline: Instant, future: F) -> Within<F> {
        Within { deadlines: Arc::clone(self), deadline, late: Deadline::default(), future }
    }
}

impl<T, F: Future<Output = Result<T, ActorError>>> Future for Within<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.future.poll(cx) {
            return Poll::Ready(result);
        }
        ready!(this.late.poll(this.deadlines, *this.deadline, cx.waker()));
        Poll::Ready(Err(ActorError::Deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn wait(deadlines: &Arc<Deadlines>, until: Instant) {
        let mut deadline = Deadline::default();
        poll_fn(|cx| deadline.poll(deadlines, until, cx.waker())).await;
    }

    /// Invariants 1 and 2.
    #[tokio::test(start_paused = true)]
    async fn calls_are_woken_in_time_in_any_order() {
        let deadlines = Deadlines::start(&Handle::current());
        let begun = Instant::now();
        let waits: Vec<_> = [500, 20, 20, 3000, 1, 499]
            .into_iter()
            .map(|after_ms| {
                let deadlines = Arc::clone(&deadlines);
                tokio::spawn(async move {
                    let until = begun + Duration::from_millis(after_ms);
                    wait(&deadlines, until).await;
                    let late = Instant::now().checked_duration_since(until).expect("not before");
                    // The runtime's own clock ticks by the millisecond.
                    assert!(late <= 2 * RESOLUTION, "{after_ms} ms: {late:?} late");
                })
            })
            .collect();
        for wait in waits {
            wait.await.expect("in time");
        }
        assert!(deadlines.shards.iter().all(|shard| shard.0.lock().calls.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_ends_is_forgotten() {
        let deadlines = Deadlines::start(&Handle::current());
        let soon = Instant::now() + Duration::from_secs(1);
        assert!(tokio::time::timeout(Duration::from_millis(1), wait(&deadlines, soon)).await.is_err());
        assert!(deadlines.shards.iter().all(|shard| shard.0.lock().calls.is_empty()));
        wait(&deadlines, soon).await;
        assert!(Instant::now() >= soon);
    }
}
