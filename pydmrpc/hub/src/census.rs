//! A question that all clients answer, each for itself: what it holds.
//!
//! 1. It ends: when all that were asked have answered or are gone, or when its time is over.
//! 2. A client's answer counts once.

use crate::event::Now;
use crate::id::ClientId;
use std::collections::BTreeMap;

/// Questions that are open at a time; one more ends the oldest.
const MAX_OPEN: usize = 64;

/// A question that is open.
#[derive(Debug)]
struct Census<A, R> {
    asker: A,
    until: Now,
    answers: BTreeMap<ClientId, Option<R>>,
    missing: usize,
}

/// A question that has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<A, R> {
    /// Who asked.
    pub asker: A,
    /// What those have answered that are there; `None` of those that have not.
    pub answers: BTreeMap<ClientId, Option<R>>,
}

/// The questions that are open: an `A` asks, an `R` is an answer.
#[derive(Debug)]
pub struct Censuses<A, R> {
    open: BTreeMap<u64, Census<A, R>>,
    next: u64,
}

impl<A, R> Default for Censuses<A, R> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), next: 0 }
    }
}

impl<A, R> Censuses<A, R> {
    /// Asks clients; gives the number that they are to be asked with, and a question that ended on account of this one. Without
    /// clients it is due at once.
    pub fn ask(
        &mut self,
        asker: A,
        until: Now,
        clients: impl IntoIterator<Item = ClientId>,
    ) -> (u64, Option<Ended<A, R>>) {
        let crowded = if self.open.len() >= MAX_OPEN { self.open.pop_first() } else { None };
        let number = self.next;
        self.next += 1;
        let answers: BTreeMap<_, _> = clients.into_iter().map(|client| (client, None)).collect();
        let missing = answers.len();
        self.open.insert(number, Census { asker, until, answers, missing });
        (number, crowded.map(|(_, census)| census.end()))
    }

    /// A client has answered.
    pub fn answered(&mut self, number: u64, client: ClientId, answer: R) -> Option<Ended<A, R>> {
        let place = self.open.get_mut(&number)?.answers.get_mut(&client)?;
        if place.is_some() {
            return None;
        }
        *place = Some(answer);
        self.one_less(number)
    }

    /// A client is gone: what it held is, too, unless it has said so before. Questions that waited for it alone end.
    pub fn gone(&mut self, client: ClientId) -> Vec<Ended<A, R>> {
        let waits = |census: &Census<A, R>| matches!(census.answers.get(&client), Some(None));
        let numbers: Vec<u64> =
            self.open.iter().filter(|(_, census)| waits(census)).map(|(&number, _)| number).collect();
        let ended = numbers.into_iter().filter_map(|number| {
            self.open.get_mut(&number)?.answers.remove(&client);
            self.one_less(number)
        });
        ended.collect()
    }

    fn one_less(&mut self, number: u64) -> Option<Ended<A, R>> {
        let census = self.open.get_mut(&number)?;
        census.missing -= 1;
        if census.missing > 0 {
            return None;
        }
        self.open.remove(&number).map(Census::end)
    }

    /// Questions whose time is over, and those that nobody was asked.
    pub fn take_due(&mut self, now: Now) -> Vec<Ended<A, R>> {
        let due = |census: &Census<A, R>| census.missing == 0 || census.until <= now;
        let numbers: Vec<u64> = self.open.iter().filter(|(_, census)| due(census)).map(|(&number, _)| number).collect();
        numbers.into_iter().filter_map(|number| self.open.remove(&number)).map(Census::end).collect()
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Now> {
        self.open.values().map(|census| census.until).min()
    }
}

impl<A, R> Census<A, R> {
    fn end(self) -> Ended<A, R> {
        Ended { asker: self.asker, answers: self.answers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Now = 100;

    type Asked = Censuses<&'static str, char>;

    fn asked(clients: &[u32]) -> (Asked, u64) {
        let mut censuses = Censuses::default();
        let (number, crowded) = censuses.ask("asker", UNTIL, clients.iter().copied().map(ClientId));
        assert_eq!(crowded, None);
        (censuses, number)
    }

    fn ended(answers: &[(u32, Option<char>)]) -> Ended<&'static str, char> {
        Ended { asker: "asker", answers: answers.iter().map(|&(client, answer)| (ClientId(client), answer)).collect() }
    }

    /// Invariant 1.
    #[test]
    fn it_ends_with_the_last_answer() {
        let (mut censuses, number) = asked(&[2, 5]);
        assert_eq!(censuses.answered(number, ClientId(5), 'b'), None);
        assert_eq!(censuses.answered(number, ClientId(2), 'a'), Some(ended(&[(2, Some('a')), (5, Some('b'))])));
        assert_eq!(censuses.next_due(), None);
    }

    /// Invariant 1.
    #[test]
    fn it_ends_when_those_that_are_missing_are_gone() {
        let (mut censuses, number) = asked(&[2, 5]);
        assert_eq!(censuses.answered(number, ClientId(2), 'a'), None);
        assert_eq!(censuses.gone(ClientId(2)), [], "what it said is there");
        assert_eq!(censuses.gone(ClientId(5)), [ended(&[(2, Some('a'))])]);
    }

    /// Invariant 1.
    #[test]
    fn it_ends_when_its_time_is_over() {
        let (mut censuses, number) = asked(&[2, 5]);
        assert_eq!(censuses.answered(number, ClientId(2), 'a'), None);
        assert_eq!(censuses.next_due(), Some(UNTIL));
        assert_eq!(censuses.take_due(UNTIL - 1), []);
        assert_eq!(censuses.take_due(UNTIL), [ended(&[(2, Some('a')), (5, None)])]);
        assert_eq!(censuses.answered(number, ClientId(5), 'b'), None, "too late");
    }

    /// Invariant 1.
    #[test]
    fn nobody_to_ask_is_no_wait() {
        let (mut censuses, _) = asked(&[]);
        assert_eq!(censuses.take_due(0), [ended(&[])]);
    }

    /// Invariant 1.
    #[test]
    fn no_more_than_so_many_are_open() {
        let (mut censuses, _) = asked(&[2]);
        for _ in 1..MAX_OPEN {
            assert_eq!(censuses.ask("other", UNTIL, [ClientId(2)]).1, None);
        }
        assert_eq!(censuses.ask("last", UNTIL, [ClientId(2)]).1, Some(ended(&[(2, None)])));
    }

    /// Invariant 2.
    #[test]
    fn an_answer_counts_once() {
        let (mut censuses, number) = asked(&[2, 5]);
        assert_eq!(censuses.answered(number, ClientId(2), 'a'), None);
        assert_eq!(censuses.answered(number, ClientId(2), 'b'), None, "it has answered");
        assert_eq!(censuses.answered(number, ClientId(9), 'c'), None, "nobody asked it");
        assert_eq!(censuses.answered(number, ClientId(5), 'd'), Some(ended(&[(2, Some('a')), (5, Some('d'))])));
    }
}
