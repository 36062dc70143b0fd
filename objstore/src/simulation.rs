//! Many processes with claims, ledgers and links between them, against a model of the memory node, on a clock of its own.
//!
//! Links are ordered, each message takes its own time up to [`MAX_DELAY`], and the links of one process are not ordered among
//! each other: a reference overtakes the commit of its object, a hold overtakes it too, a release overtakes the loan. Some
//! references are lent before they are published, which happens when somebody is found to wait, or never. A process that
//! crashes leaves behind what it sent. The grace period is long enough for a hold to be asked for.
//!
//! Checked after every step: invariants 1 to 3 of `claim.rs` and `ledger.rs`, seen from the node: an object that some process
//! may read is there, and its pages are not used again. Checked at the end: everything is gone, nobody waits for ever
//! (invariant 3 of `object.rs`), and nothing was lost but what died with its maker.

use crate::claim::{Claim, Farewell};
use crate::ledger::{Borrowed, Lent};
use dmrpc_test_random::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const PROCESSES: usize = 4;
const MAX_DELAY: u64 = 20;
/// Seeing that a peer is gone takes one delay at most, and having a hold asked for at the node another; and there the request
/// may wait for one commit for each other process, which may have to be asked for.
const GRACE: u64 = (2 + 3 * PROCESSES as u64) * MAX_DELAY;

type ObjectName = usize;
type ReferenceName = usize;

/// An ordered stream of messages, each of which arrives at its own time, but not before the one ahead of it.
struct Stream<T> {
    messages: VecDeque<(u64, T)>,
    /// The sender is gone: what was sent still arrives, then the end is seen.
    ended: Option<u64>,
}

impl<T> Stream<T> {
    fn new() -> Self {
        Self { messages: VecDeque::new(), ended: None }
    }

    fn send(&mut self, now: u64, random: &mut Random, message: T) {
        let at = self.messages.back().map_or(0, |(at, _)| *at).max(now + random.below(MAX_DELAY));
        self.messages.push_back((at, message));
    }

    fn receive(&mut self, now: u64) -> Option<T> {
        (self.messages.front()?.0 <= now).then(|| self.messages.pop_front().expect("looked at").1)
    }

    fn peek(&self, now: u64) -> Option<&T> {
        self.messages.front().filter(|(at, _)| *at <= now).map(|(_, message)| message)
    }

    fn is_over(&self, now: u64) -> bool {
        self.messages.is_empty() && self.ended.is_some_and(|at| at <= now)
    }
}

/// What goes over the link between two processes.
enum Message {
    Reference { object: ObjectName, loan: u64 },
    Returns(Vec<u64>),
}

/// What a session sends to the node.
enum Ask {
    Commit {
        reference: ReferenceName,
        object: ObjectName,
        base: Option<ObjectName>,
    },
    Hold {
        reference: ReferenceName,
        object: ObjectName,
    },
    Release {
        object: ObjectName,
    },
    /// The object will never be made: its slot comes back.
    Return {
        object: ObjectName,
    },
}

/// What the node sends to a session.
enum Answer {
    Held {
        reference: ReferenceName,
        held: bool,
    },
    /// The commit failed.
    Failed {
        reference: ReferenceName,
        object: ObjectName,
    },
    /// Somebody waits for an object of this session's.
    Wanted,
}

#[derive(Default)]
struct Node {
    /// Holds by process, of objects that are there.
    objects: BTreeMap<ObjectName, BTreeMap<usize, u32>>,
    /// Sessions that have ended, and until when their holds stand.
    graces: BTreeMap<usize, u64>,
    gone: BTreeSet<usize>,
    /// Objects that were made.
    made: BTreeSet<ObjectName>,
    /// Objects that are gone, or will never be made.
    past: BTreeSet<ObjectName>,
    /// Objects whose commit failed.
    failed: BTreeSet<ObjectName>,
    /// Who may make which object: the slots.
    makers: BTreeMap<ObjectName, usize>,
    /// Requests for which the maker was told that somebody waits.
    told: BTreeSet<(usize, ObjectName)>,
}

impl Node {
    /// Whether the object is not there yet, but may come.
    fn is_pending(&self, object: ObjectName) -> bool {
        let maker = self.makers[&object];
        let over = self.graces.contains_key(&maker) || self.gone.contains(&maker);
        !over && !self.objects.contains_key(&object) && !self.past.contains(&object)
    }

    fn drop_hold(&mut self, object: ObjectName, process: usize) {
        let holds =
            self.objects.get_mut(&object).expect("a hold is given back once, and the object is there until then");
        let count = holds.get_mut(&process).expect("a session gives back what it has");
        *count -= 1;
        if *count == 0 {
            holds.remove(&process);
        }
        if holds.is_empty() {
            self.objects.remove(&object);
            self.past.insert(object);
        }
    }
}

/// A loan as a borrower knows it: from whom, and its number.
type Loan = (usize, u64);

/// How an object is made: over which reference.
type Making = Option<ReferenceName>;

struct Reference {
    object: ObjectName,
    claim: Claim<Making, Loan>,
    /// Uses: one for the program, one for each loan of it, one for each request that is to be answered, one for each
    /// object made over it that is not committed.
    uses: u32,
    /// Whether the program has it, and so may read, lend, and drop it.
    owned: bool,
}

#[derive(Default)]
struct Process {
    references: BTreeMap<ReferenceName, Reference>,
    lent: BTreeMap<usize, Lent<ReferenceName>>,
    borrowed: BTreeMap<usize, Borrowed<ReferenceName>>,
    lingering: Vec<(u64, ReferenceName)>,
    /// What was lent and is not published, in order; some of it may be gone.
    unannounced: VecDeque<ReferenceName>,
    crashed: bool,
}

struct World {
    random: Random,
    now: u64,
    node: Node,
    processes: Vec<Process>,
    links: BTreeMap<(usize, usize), Stream<Message>>,
    asks: Vec<Stream<Ask>>,
    answers: Vec<Stream<Answer>>,
    next_name: usize,
    losses: usize,
    /// Objects whose pages their makers use again.
    recycled: BTreeSet<ObjectName>,
}

impl World {
    fn new(seed: u64) -> Self {
        let pairs = || (0..PROCESSES).flat_map(|a| (0..PROCESSES).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let mut processes: Vec<Process> = (0..PROCESSES).map(|_| Process::default()).collect();
        for (a, b) in pairs() {
            processes[a].lent.insert(b, Lent::new(1000));
            processes[a].borrowed.insert(b, Borrowed::new());
        }
        Self {
            random: Random(seed),
            now: 0,
            node: Node::default(),
            processes,
            links: pairs().map(|pair| (pair, Stream::new())).collect(),
            asks: (0..PROCESSES).map(|_| Stream::new()).collect(),
            answers: (0..PROCESSES).map(|_| Stream::new()).collect(),
            next_name: 0,
            losses: 0,
            recycled: BTreeSet::new(),
        }
    }

    fn name(&mut self) -> usize {
        self.next_name += 1;
        self.next_name
    }

    fn ask(&mut self, process: usize, ask: Ask) {
        self.asks[process].send(self.now, &mut self.random, ask);
    }

    fn add(&mut self, process: usize, object: ObjectName, claim: Claim<Making, Loan>) -> ReferenceName {
        let name = self.name();
        self.node.makers.entry(object).or_insert(process);
        self.processes[process].references.insert(name, Reference { object, claim, uses: 1, owned: true });
        name
    }

    fn reference(&mut self, process: usize, name: ReferenceName) -> &mut Reference {
        self.processes[process].references.get_mut(&name).expect("in use")
    }

    fn release_use(&mut self, process: usize, name: ReferenceName) {
        let reference = self.reference(process, name);
        reference.uses -= 1;
        if reference.uses > 0 {
            return;
        }
        let mut reference = self.processes[process].references.remove(&name).expect("in use");
        match reference.claim.end() {
            Farewell::Recycle(base) | Farewell::Withdraw(base) => {
                self.recycled.insert(reference.object);
                if let Some(base) = base {
                    self.release_use(process, base);
                }
            }
            Farewell::Release => self.ask(process, Ask::Release { object: reference.object }),
            Farewell::Return((lender, number)) => self.give_back(process, lender, number),
            Farewell::Nothing => {}
        }
    }

    fn give_back(&mut self, process: usize, lender: usize, number: u64) {
        // The wake-up: at once here.
        if self.processes[process].borrowed.get_mut(&lender).expect("a peer").done(number) {
            let mut returns = Vec::new();
            self.processes[process].borrowed.get_mut(&lender).expect("a peer").take_returns(&mut returns);
            let link = self.links.get_mut(&(process, lender)).expect("a peer");
            link.send(self.now, &mut self.random, Message::Returns(returns));
        }
    }

    fn publish(&mut self, process: usize, name: ReferenceName) {
        if self.reference(process, name).claim.making().is_some_and(Option::is_some) {
            self.announce(process);
        }
        self.publish_in_turn(process, name);
    }

    /// Publishes what was lent.
    fn announce(&mut self, process: usize) {
        while let Some(name) = self.processes[process].unannounced.pop_front() {
            if self.processes[process].references.contains_key(&name) {
                self.publish_in_turn(process, name);
            }
        }
    }

    fn publish_in_turn(&mut self, process: usize, name: ReferenceName) {
        let Some(base) = self.reference(process, name).claim.publish() else { return };
        if let Some(base) = base {
            self.publish_in_turn(process, base);
            if self.reference(process, base).claim.adopt() {
                self.ask_for_hold(process, base);
            }
        }
        let object = self.reference(process, name).object;
        let base_object = base.map(|base| self.reference(process, base).object);
        self.ask(process, Ask::Commit { reference: name, object, base: base_object });
        if let Some(base) = base {
            self.release_use(process, base);
        }
    }

    fn adopt(&mut self, process: usize, name: ReferenceName) {
        self.announce(process);
        self.ask_for_hold(process, name);
    }

    fn ask_for_hold(&mut self, process: usize, name: ReferenceName) {
        let reference = self.reference(process, name);
        reference.uses += 1;
        let object = reference.object;
        self.ask(process, Ask::Hold { reference: name, object });
    }

    /// One thing that some program does.
    fn act(&mut self) {
        let process = self.random.below(PROCESSES as u64) as usize;
        if self.processes[process].crashed {
            return;
        }
        let owned: Vec<ReferenceName> =
            self.processes[process].references.iter().filter(|(_, r)| r.owned).map(|(&name, _)| name).collect();
        let some = owned.get(self.random.below(owned.len().max(1) as u64) as usize).copied();
        match (self.random.below(12), some) {
            (0..=2, _) => {
                let object = self.name();
                self.add(process, object, Claim::Unpublished(None));
            }
            (3, Some(base)) => {
                let object = self.name();
                self.reference(process, base).uses += 1;
                self.add(process, object, Claim::Unpublished(Some(base)));
            }
            (4..=7, Some(name)) => {
                let peer = (process + 1 + self.random.below(PROCESSES as u64 - 1) as usize) % PROCESSES;
                if self.links[&(process, peer)].ended.is_some() || self.processes[peer].crashed {
                    return;
                }
                if self.random.below(2) == 0 {
                    self.publish(process, name);
                } else if self.reference(process, name).claim.lend() {
                    self.processes[process].unannounced.push_back(name);
                }
                let reference = self.reference(process, name);
                reference.uses += 1;
                let object = reference.object;
                let loan = self.processes[process].lent.get_mut(&peer).expect("a peer").lend(name);
                let link = self.links.get_mut(&(process, peer)).expect("a peer");
                link.send(self.now, &mut self.random, Message::Reference { object, loan });
            }
            (8, Some(name)) if self.reference(process, name).claim.adopt() => self.adopt(process, name),
            (9..=11, Some(name)) => {
                self.reference(process, name).owned = false;
                self.release_use(process, name);
            }
            _ => {}
        }
    }

    fn crash(&mut self, process: usize) {
        if std::mem::replace(&mut self.processes[process].crashed, true) {
            return;
        }
        self.processes[process].references.clear();
        for peer in (0..PROCESSES).filter(|&peer| peer != process) {
            let at = self.now + self.random.below(MAX_DELAY);
            self.links.get_mut(&(process, peer)).expect("a peer").ended = Some(at);
        }
        self.asks[process].ended = Some(self.now + self.random.below(MAX_DELAY));
    }

    fn deliver(&mut self) {
        for process in 0..PROCESSES {
            // The node takes a session's requests in order: one that waits keeps those behind it waiting.
            while let Some(ask) = self.asks[process].peek(self.now) {
                let waits_for = match ask {
                    Ask::Commit { base, .. } => *base,
                    Ask::Hold { object, .. } => Some(*object),
                    Ask::Release { .. } | Ask::Return { .. } => None,
                };
                // What the session itself has not made by now, it does not make any more: its requests are in order.
                let may_come =
                    |object: &ObjectName| self.node.makers[object] != process && self.node.is_pending(*object);
                if let Some(object) = waits_for.filter(may_come) {
                    if self.node.told.insert((process, object)) {
                        let maker = self.node.makers[&object];
                        self.answers[maker].send(self.now, &mut self.random, Answer::Wanted);
                    }
                    // What a session has waiting when its link is seen to be gone is not done any more.
                    let stream = &mut self.asks[process];
                    if stream.ended.is_some_and(|at| at <= self.now) {
                        stream.messages.clear();
                    }
                    break;
                }
                let ask = self.asks[process].receive(self.now).expect("looked at");
                self.at_node(process, &ask);
            }
            if self.asks[process].is_over(self.now) && !self.node.gone.contains(&process) {
                self.session_ended(process);
            }
        }
        let over: Vec<usize> = self.node.graces.iter().filter(|(_, at)| **at <= self.now).map(|(&p, _)| p).collect();
        for process in over {
            self.node.graces.remove(&process);
            self.node.gone.insert(process);
            let held: Vec<(ObjectName, u32)> =
                self.node.objects.iter().filter_map(|(&o, holds)| Some((o, *holds.get(&process)?))).collect();
            for (object, count) in held {
                (0..count).for_each(|_| self.node.drop_hold(object, process));
            }
        }
        for process in (0..PROCESSES).filter(|&p| !self.processes[p].crashed).collect::<Vec<_>>() {
            while let Some(answer) = self.answers[process].receive(self.now) {
                self.at_client(process, &answer);
            }
            for peer in (0..PROCESSES).filter(|&peer| peer != process) {
                while let Some(message) = self.links.get_mut(&(peer, process)).expect("a peer").receive(self.now) {
                    self.at_peer(process, peer, message);
                }
                if self.links[&(peer, process)].is_over(self.now) {
                    self.link_lost(process, peer);
                }
            }
            let now = self.now;
            let over: Vec<_> =
                self.processes[process].lingering.extract_if(.., |(until, _)| *until <= now).map(|l| l.1).collect();
            over.into_iter().for_each(|name| self.release_use(process, name));
        }
    }

    /// The holds of the session stand for the grace period. What it has not made by now it never will.
    fn session_ended(&mut self, process: usize) {
        let until = self.now + GRACE;
        if self.node.graces.contains_key(&process) {
            return;
        }
        self.node.graces.insert(process, until);
    }

    fn at_node(&mut self, process: usize, ask: &Ask) {
        let mut answers = Vec::new();
        match *ask {
            Ask::Commit { reference, object, base } => {
                if base.is_none_or(|base| self.node.objects.contains_key(&base)) {
                    self.node.objects.entry(object).or_default().insert(process, 1);
                    self.node.made.insert(object);
                } else {
                    self.node.failed.insert(object);
                    answers.push((process, Answer::Failed { reference, object }));
                }
            }
            Ask::Hold { reference, object } => {
                let holds = self.node.objects.get_mut(&object);
                let held = holds.map(|holds| *holds.entry(process).or_default() += 1).is_some();
                answers.push((process, Answer::Held { reference, held }));
            }
            Ask::Release { object } => {
                // What was never made can't be given back: the client does not know yet.
                if self.node.made.contains(&object) {
                    self.node.drop_hold(object, process);
                }
            }
            Ask::Return { object } => {
                self.node.past.insert(object);
            }
        }
        for (process, answer) in answers {
            self.answers[process].send(self.now, &mut self.random, answer);
        }
    }

    fn at_client(&mut self, process: usize, answer: &Answer) {
        match *answer {
            Answer::Held { reference: name, held } => {
                if let Some((lender, number)) = self.reference(process, name).claim.adopted(held) {
                    self.give_back(process, lender, number);
                }
                let reference = self.reference(process, name);
                let (lost, object) = (reference.claim.is_lost(), reference.object);
                // An object whose maker crashed before it was committed, or whose base is such a one, never was.
                let maker = self.node.makers[&object];
                let never_was = self.processes[maker].crashed || self.node.failed.contains(&object);
                self.losses += usize::from(lost && (self.node.made.contains(&object) || !never_was));
                self.release_use(process, name);
            }
            Answer::Failed { reference: name, object } => {
                if let Some(reference) = self.processes[process].references.get_mut(&name) {
                    reference.claim.publish_failed();
                }
                self.ask(process, Ask::Return { object });
            }
            Answer::Wanted => self.announce(process),
        }
    }

    fn at_peer(&mut self, process: usize, peer: usize, message: Message) {
        match message {
            Message::Reference { object, loan } => {
                let name = self.add(process, object, Claim::Borrowed((peer, loan)));
                let book = self.processes[process].borrowed.get_mut(&peer).expect("a peer");
                assert!(book.borrow(loan, name), "numbers are new");
            }
            Message::Returns(numbers) => {
                for number in numbers {
                    let book = self.processes[process].lent.get_mut(&peer).expect("a peer");
                    let name = book.returned(number).expect("a loan is given back once");
                    self.release_use(process, name);
                }
            }
        }
    }

    fn link_lost(&mut self, process: usize, peer: usize) {
        let borrowed = self.processes[process].borrowed.get_mut(&peer).expect("a peer");
        if !borrowed.is_closed() {
            for name in borrowed.close() {
                if self.reference(process, name).claim.lender_lost() {
                    self.adopt(process, name);
                }
            }
        }
        let until = self.now + GRACE;
        let lent = self.processes[process].lent.get_mut(&peer).expect("a peer").close();
        self.processes[process].lingering.extend(lent.into_iter().map(|name| (until, name)));
    }

    /// An object that a program may read is at the node, or on its way there, or known to be lost.
    fn check(&self) {
        for (process, state) in self.processes.iter().enumerate().filter(|(_, p)| !p.crashed) {
            for (name, reference) in &state.references {
                let fine = match reference.claim {
                    Claim::Lost => true,
                    Claim::Unpublished(_) | Claim::Lent(_) => !self.recycled.contains(&reference.object),
                    // A link that is lost, but not seen to be, is covered by the grace periods.
                    _ => {
                        (!self.node.past.contains(&reference.object) || !self.node.made.contains(&reference.object))
                            && !self.recycled.contains(&reference.object)
                    }
                };
                assert!(
                    fine,
                    "process {process} may read object {} by {name} ({:?}), which is gone",
                    reference.object, reference.claim
                );
            }
        }
    }

    fn run(mut self, crashes: usize) {
        // Not two within a grace period: a lender and the one it lends for, both gone at once, may take an object along.
        let mut crash_at: Vec<u64> = (0..crashes as u64).map(|n| 600 * n + self.random.below(400)).collect();
        for _ in 0..2000 {
            self.now += 1;
            if crash_at.contains(&self.now) {
                let process = self.random.below(PROCESSES as u64) as usize;
                self.crash(process);
                crash_at.retain(|&at| at != self.now);
            }
            (0..self.random.below(4)).for_each(|_| self.act());
            self.deliver();
            self.check();
        }
        // Every program drops what it has; then everything has to go.
        for process in 0..PROCESSES {
            let owned: Vec<ReferenceName> =
                self.processes[process].references.iter().filter(|(_, r)| r.owned).map(|(&name, _)| name).collect();
            for name in owned {
                self.reference(process, name).owned = false;
                self.release_use(process, name);
            }
        }
        for _ in 0..50 * GRACE {
            self.now += 1;
            self.deliver();
            // References that came meanwhile are dropped too.
            for process in 0..PROCESSES {
                let owned: Vec<ReferenceName> =
                    self.processes[process].references.iter().filter(|(_, r)| r.owned).map(|(&name, _)| name).collect();
                for name in owned {
                    self.reference(process, name).owned = false;
                    self.release_use(process, name);
                }
            }
            self.check();
        }
        assert!(self.node.objects.is_empty(), "objects are left: {:?}", self.node.objects);
        assert_eq!(self.losses, 0, "a hold came too late, though the grace period is long enough");
        for process in self.processes.iter().filter(|process| !process.crashed) {
            assert!(process.references.is_empty(), "references are left");
            assert!(process.lent.values().all(|lent| lent.len() == 0), "loans are left");
            assert!(process.borrowed.values().all(|borrowed| borrowed.len() == 0), "borrows are left");
        }
    }
}

fn simulate(first: u64, seeds: u64, crashes: usize) {
    for seed in first..first + seeds {
        // A failing seed prints itself.
        let result = std::panic::catch_unwind(|| World::new(seed).run(crashes));
        if let Err(panic) = result {
            eprintln!("seed {seed}, {crashes} crashes");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn loans_without_crashes() {
    simulate(0, 60, 0);
}

#[test]
fn loans_with_one_crash() {
    simulate(1000, 60, 1);
}

#[test]
fn loans_with_crashes_of_all_but_some() {
    simulate(2000, 60, 3);
}
