//! The dispatcher's queue of free workers, and the line of requests when there is none.
//!
//! 1. A worker has at most as many requests as it has places.
//! 2. Requests get workers in the order they came; one that is withdrawn gives its turn to the next.
//! 3. No more than the limit wait: the next is refused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// Workers, and who waits for them.
#[derive(Clone, Debug)]
pub(crate) struct Crew(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// A place of a worker each, the longest idle first.
    free: VecDeque<usize>,
    waiting: VecDeque<oneshot::Sender<Place>>,
    max_waiting: usize,
}

/// A worker's place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// Whose.
    pub(crate) worker: usize,
    crew: Crew,
}

impl Crew {
    /// That many workers with so many places each.
    pub(crate) fn new(workers: usize, places: usize, max_waiting: usize) -> Self {
        let free = (0..places).flat_map(|_| 0..workers).collect();
        Self(Arc::new(Mutex::new(State { free, waiting: VecDeque::new(), max_waiting })))
    }

    /// A place, as soon as there is one. The error says how many wait already.
    pub(crate) async fn place(&self) -> Result<Place, usize> {
        let turn = {
            let mut state = self.state();
            if let Some(worker) = state.free.pop_front() {
                return Ok(Place { worker, crew: self.clone() });
            }
            state.waiting.retain(|waiter| !waiter.is_closed());
            if state.waiting.len() >= state.max_waiting {
                return Err(state.waiting.len());
            }
            let (sender, turn) = oneshot::channel();
            state.waiting.push_back(sender);
            turn
        };
        Ok(turn.await.expect("the line is kept by the crew, which this future borrows"))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut state = self.crew.state();
            state.waiting.retain(|waiter| !waiter.is_closed());
            let Some(next) = state.waiting.pop_front() else {
                state.free.push_back(self.worker);
                return;
            };
            next
        };
        // If it was withdrawn this very moment, the place that comes back is dropped, and offered to the one after it.
        drop(next.send(Place { worker: self.worker, crew: self.crew.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn now<F: Future>(future: F) -> Option<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn invariant_1_places_are_limited() {
        let crew = Crew::new(2, 2, 8);
        let places: Vec<Place> = (0..4).map(|_| now(crew.place()).unwrap().unwrap()).collect();
        assert_eq!(places.iter().map(|place| place.worker).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!(now(crew.place()).is_none());
        drop(places);
        assert_eq!(now(crew.place()).unwrap().unwrap().worker, 0);
    }

    #[test]
    fn invariant_2_in_turn_and_withdrawn() {
        let crew = Crew::new(1, 1, 8);
        let held = now(crew.place()).unwrap().unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut first = Box::pin(crew.place());
        let mut second = Box::pin(crew.place());
        let mut third = Box::pin(crew.place());
        for waiter in [&mut first, &mut second, &mut third] {
            assert!(waiter.as_mut().poll(&mut context).is_pending());
        }
        drop(first);
        drop(held);
        assert!(third.as_mut().poll(&mut context).is_pending());
        let Poll::Ready(Ok(place)) = second.as_mut().poll(&mut context) else { panic!("its turn") };
        drop(place);
        let Poll::Ready(Ok(place)) = third.as_mut().poll(&mut context) else { panic!("its turn") };
        drop(place);
        assert_eq!(crew.state().free.len(), 1);
    }

    #[test]
    fn invariant_3_the_line_is_limited() {
        let crew = Crew::new(1, 1, 1);
        let _held = now(crew.place()).unwrap().unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut waits = Box::pin(crew.place());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        assert_eq!(now(crew.place()).unwrap().unwrap_err(), 1);
        drop(waits);
        assert!(now(crew.place()).is_none(), "who has left the line does not count");
    }
}
