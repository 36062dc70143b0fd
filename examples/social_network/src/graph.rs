//! Who is friends with whom.
//!
//! Without a file a graph is made, in the shape of the network *Reed98* (R. A. Rossi, N. K. Ahmed: *The Network Data Repository*, AAAI
//! 2015; it is what DeathStarBench uses): as many users and friendships, and a few users with very many, by preferential
//! attachment (Barabási, Albert, Science 286, 1999).

use crate::call::UserId;
use anyhow::{Context as _, ensure};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

/// Users of the graph that is made.
const USERS: UserId = 962;

/// Friendships of the graph that is made.
const FRIENDSHIPS: usize = 18_812;

/// The most users of a graph that is read.
const MAX_USERS: UserId = 10_000_000;

/// The graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Those of user 1, 2, …, in order.
    friends: Vec<Vec<UserId>>,
}

impl Graph {
    /// The graph of a file with a friendship (two numbers) on each line; without one, one that is always the same.
    pub(crate) fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        match file {
            None => Ok(Self::make()),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                Self::read(&text).with_context(|| format!("in {}", path.display()))
            }
        }
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let mut edges = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with(['%', '#'])) {
            let mut numbers = line.split([' ', '\t', ',']).filter(|part| !part.is_empty());
            let mut number = || numbers.next()?.parse::<UserId>().ok().filter(|n| (1..=MAX_USERS).contains(n));
            let edge = number().zip(number()).with_context(|| format!("{line:?} is no pair of users"))?;
            edges.push(edge);
        }
        ensure!(!edges.is_empty(), "there is nobody in it");
        Ok(Self::of(edges))
    }

    fn of(edges: impl IntoIterator<Item = (UserId, UserId)>) -> Self {
        let mut friends: Vec<BTreeSet<UserId>> = Vec::new();
        for (one, other) in edges.into_iter().filter(|(one, other)| one != other) {
            let users = one.max(other) as usize;
            if friends.len() < users {
                friends.resize(users, BTreeSet::new());
            }
            friends[one as usize - 1].insert(other);
            friends[other as usize - 1].insert(one);
        }
        Self { friends: friends.into_iter().map(|friends| friends.into_iter().collect()).collect() }
    }

    fn make() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n as u64) as usize
        };
        // Every end of a friendship so far is in `ends` once: a user is chosen as often as it has friends.
        let mut edges = BTreeSet::from([(1, 2)]);
        let mut ends: Vec<UserId> = vec![1, 2];
        for user in 3..=USERS {
            // What is left, shared out among those who are left.
            let own = (FRIENDSHIPS - edges.len()).div_ceil((USERS - user) as usize + 1).min(user as usize - 1);
            let mut chosen = BTreeSet::new();
            while chosen.len() < own {
                chosen.insert(ends[below(ends.len())]);
            }
            for friend in chosen {
                edges.insert((friend, user));
                ends.extend([friend, user]);
            }
        }
        Self::of(edges)
    }

    /// All users.
    pub(crate) fn users(&self) -> RangeInclusive<UserId> {
        1..=self.friends.len() as UserId
    }

    /// A user's friends, who follow it; empty for nobody.
    pub(crate) fn friends(&self, user: UserId) -> &[UserId] {
        (user as usize).checked_sub(1).and_then(|at| self.friends.get(at)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_in_the_shape_of_the_real_one() {
        let graph = Graph::open(None).unwrap();
        let degrees: Vec<usize> = graph.users().map(|user| graph.friends(user).len()).collect();
        assert_eq!(degrees.len(), USERS as usize);
        assert_eq!(degrees.iter().sum::<usize>(), 2 * FRIENDSHIPS);
        // The real one's largest degree is 313, and nobody is alone.
        assert!((150..=500).contains(degrees.iter().max().unwrap()), "{:?}", degrees.iter().max());
        assert!(degrees.iter().all(|&degree| degree > 0));
        assert_eq!(graph, Graph::make(), "it is always the same");
    }

    #[test]
    fn read_from_a_file() {
        let graph = Graph::read("% a comment\n1 2\n2,3\n\n3\t2\n").unwrap();
        assert_eq!(graph.users(), 1..=3);
        assert_eq!((graph.friends(2), graph.friends(4), graph.friends(0)), (&[1, 3][..], &[][..], &[][..]));
        for wrong in ["", "1\n", "0 1\n", "1 x\n", "1 4000000000\n"] {
            assert!(Graph::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
