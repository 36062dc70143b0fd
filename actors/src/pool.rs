//! Actors of one kind that share work.

use crate::{Actor, ActorRef};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Actors of one kind, here or elsewhere, of which any can do the work. Clones are the same pool.
///
/// ```
/// use dmrpc_actors::{Pool, Supervision, System, actor};
///
/// struct Square;
///
/// #[actor]
/// impl Square {
///     #[message]
///     fn of(&self, n: u64) -> u64 {
///         n * n
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), dmrpc_actors::ActorError> {
/// let system = System::builder().build().await?;
/// let supervisor = system.supervisor(Supervision::default());
/// let squares: Pool<Square> = (0..4).map(|_| supervisor.spawn(|| Square)).collect();
/// assert_eq!(squares.idlest().of(7).await?, 49);
/// assert_eq!(squares.of_key("seven").of(7).await?, 49); // always the same one for a key
/// # Ok(())
/// # }
/// ```
pub struct Pool<A: Actor> {
    members: Arc<[ActorRef<A>]>,
    next: Arc<AtomicUsize>,
}

impl<A: Actor> Pool<A> {
    /// The members.
    pub fn members(&self) -> &[ActorRef<A>] {
        &self.members
    }

    /// The members in turn.
    pub fn next(&self) -> &ActorRef<A> {
        &self.members[self.turn()]
    }

    /// The one of two members in turn that has less to do, which keeps queues nearly as even as a look at all would (Mitzenmacher, *The
    /// Power of Two Choices in Randomized Load Balancing*, 2001). What an actor elsewhere has to do is not known: it counts as idle.
    pub fn idlest(&self) -> &ActorRef<A> {
        let turn = self.turn();
        // Not always the same pairs.
        let step = 1 + turn % (self.members.len() - 1).max(1);
        let (one, other) = (&self.members[turn], &self.members[(turn + step) % self.members.len()]);
        if other.waiting() < one.waiting() { other } else { one }
    }

    /// The member for a key, the same one for as long as the pool is: for actors that keep what belongs to it.
    pub fn of_key<K: Hash + ?Sized>(&self, key: &K) -> &ActorRef<A> {
        let hash = rustc_hash::FxBuildHasher.hash_one(key);
        // The upper half: the better one of this hash.
        &self.members[(hash >> 32) as usize % self.members.len()]
    }

    fn turn(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed) % self.members.len()
    }
}

impl<A: Actor> FromIterator<ActorRef<A>> for Pool<A> {
    /// # Panics
    ///
    /// Without any member.
    fn from_iter<I: IntoIterator<Item = ActorRef<A>>>(members: I) -> Self {
        let members: Arc<[_]> = members.into_iter().collect();
        assert!(!members.is_empty(), "a pool has members");
        Self { members, next: Arc::default() }
    }
}

impl<A: Actor> Clone for Pool<A> {
    fn clone(&self) -> Self {
        Self { members: Arc::clone(&self.members), next: Arc::clone(&self.next) }
    }
}
