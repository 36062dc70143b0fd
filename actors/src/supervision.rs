//! Which children of a supervisor are begun anew, when, and when it gives up: without tasks, clocks or mailboxes.
//!
//! A child lives through *incarnations*. When one ends, the child is parked, with its mailbox open, until it is told to begin again or
//! to end. The strategies and the budget are those of Erlang/OTP (<https://www.erlang.org/doc/system/sup_princ.html>).
//!
//! 1. A parked child is begun, or ended, or its supervisor is parked itself; it is never forgotten.
//! 2. Children that fall together are brought down last first and begun again first first, each when the one before it has started.
//! 3. With more than `restarts` restarts within `within` the supervisor brings all down and reports a crash.

use crate::Exit;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Who is begun anew with a child that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// All children.
    OneForAll,
    /// The children that were started after it, which may depend on it.
    RestForOne,
}

/// When a child is begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// However it ended.
    Always,
    /// When it crashed, or had to be killed.
    #[default]
    OnCrash,
    /// Never; it may fall with others all the same, and is begun again with them.
    Never,
}

/// How a supervisor goes about it.
///
/// ```
/// use dmrpc_actors::{Strategy, Supervision};
/// use std::time::Duration;
///
/// let supervision = Supervision::default()
///     .strategy(Strategy::RestForOne)
///     .budget(10, Duration::from_secs(60))
///     .backoff(Duration::from_millis(100), Duration::from_secs(5));
/// # let _ = supervision;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Supervision {
    strategy: Strategy,
    restarts: usize,
    within: Duration,
    backoff: Duration,
    backoff_most: Duration,
    pub(crate) patience: Duration,
}

impl Default for Supervision {
    /// One for one; three restarts in five seconds, at once; five seconds for a handler to end.
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            restarts: 3,
            within: Duration::from_secs(5),
            backoff: Duration::ZERO,
            backoff_most: Duration::ZERO,
            patience: Duration::from_secs(5),
        }
    }
}

impl Supervision {
    /// Who is begun anew with a child that is.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// How often children may be begun anew within a time; once more, and the supervisor gives up.
    pub fn budget(mut self, restarts: usize, within: Duration) -> Self {
        self.restarts = restarts;
        self.within = within;
        self
    }

    /// How long to wait before a restart: `first`, twice that if there was another one within the time of the budget, and so on up to
    /// `most`.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = first;
        self.backoff_most = most.max(first);
        self
    }

    /// How long a child that is to fall with others may go on with the message that it handles before it is cut off.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn delay(&self, restarts: usize) -> Duration {
        let doublings = u32::try_from(restarts.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
        self.backoff.saturating_mul(1 << doublings).min(self.backoff_most)
    }
}

/// A child's number; later ones have higher ones.
pub(crate) type ChildId = u64;

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Bring this child's incarnation to its end; it parks then.
    Interrupt(ChildId),
    /// Begin a new incarnation.
    Begin(ChildId),
    /// End this child, which is parked, for good.
    End(ChildId, Exit),
    /// All are parked or gone: this is how the supervisor ends, unless its own begins it again.
    Report(Exit),
}

#[derive(Debug)]
struct Child {
    restart: Restart,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Told to begin, and not yet started.
    Beginning,
    Up,
    /// Told to end its incarnation.
    Falling,
    /// Parked, to be begun at this time at the earliest.
    Parked(Instant),
}

#[derive(Debug)]
enum Phase {
    Watching,
    /// All are being brought down, for this reason.
    Folding(Exit),
    Folded,
    /// It is over: whoever comes late ends like the others.
    Ended(Exit),
}

/// What a supervisor knows.
#[derive(Debug)]
pub(crate) struct Core {
    supervision: Supervision,
    children: BTreeMap<ChildId, Child>,
    /// Who is to be begun anew once all of it are parked; in one-for-one each for itself.
    set: BTreeSet<ChildId>,
    /// When children were begun anew lately.
    restarts: VecDeque<Instant>,
    phase: Phase,
}

impl Core {
    pub(crate) fn new(supervision: Supervision) -> Self {
        Self {
            supervision,
            children: BTreeMap::new(),
            set: BTreeSet::new(),
            restarts: VecDeque::new(),
            phase: Phase::Watching,
        }
    }

    /// One more child, which is parked.
    pub(crate) fn add(&mut self, id: ChildId, restart: Restart, now: Instant) -> Vec<Action> {
        if let Phase::Ended(exit) = &self.phase {
            return vec![Action::End(id, exit.clone())];
        }
        self.children.insert(id, Child { restart, state: State::Parked(now) });
        if matches!(self.phase, Phase::Watching) {
            self.set.insert(id);
        }
        self.advance(now)
    }

    /// A child's incarnation has ended, and it waits to be told what comes next.
    pub(crate) fn parked(&mut self, id: ChildId, exit: &Exit, now: Instant) -> Vec<Action> {
        let Some(child) = self.children.get_mut(&id) else { return Vec::new() };
        let (was, restart) = (std::mem::replace(&mut child.state, State::Parked(now)), child.restart);
        // One that falls with others was not asked; how it took it does not count.
        if matches!(was, State::Up | State::Beginning) && matches!(self.phase, Phase::Watching) {
            match restart {
                Restart::Always => {}
                Restart::OnCrash if exit.is_failure() => {}
                Restart::OnCrash | Restart::Never => {
                    self.children.remove(&id);
                    self.set.remove(&id);
                    let mut actions = vec![Action::End(id, exit.clone())];
                    actions.extend(self.advance(now));
                    return actions;
                }
            }
            match self.spend(now) {
                Some(delay) => self.condemn(id, now + delay),
                None => self.phase = Phase::Folding(self.exhausted(id, exit)),
            }
        }
        self.advance(now)
    }

    /// A child that was told to begin has started.
    pub(crate) fn begun(&mut self, id: ChildId, now: Instant) -> Vec<Action> {
        if let Some(child) = self.children.get_mut(&id).filter(|child| child.state == State::Beginning) {
            child.state = State::Up;
        }
        self.advance(now)
    }

    /// A child has ended for good, whatever it was told.
    pub(crate) fn gone(&mut self, id: ChildId, now: Instant) -> Vec<Action> {
        self.children.remove(&id);
        self.set.remove(&id);
        self.advance(now)
    }

    /// Brings all children down, and reports `exit` then.
    pub(crate) fn fold(&mut self, exit: Exit, now: Instant) -> Vec<Action> {
        if matches!(self.phase, Phase::Watching) {
            self.phase = Phase::Folding(exit);
        }
        self.advance(now)
    }

    /// Begins all children again, with a new budget, after a report.
    pub(crate) fn begin(&mut self, now: Instant) -> Vec<Action> {
        if !matches!(self.phase, Phase::Folded) {
            return Vec::new();
        }
        self.phase = Phase::Watching;
        self.restarts.clear();
        self.set = self.children.keys().copied().collect();
        self.children.values_mut().for_each(|child| child.state = State::Parked(now));
        self.advance(now)
    }

    /// Ends all children, after a report.
    pub(crate) fn end(&mut self, exit: &Exit) -> Vec<Action> {
        self.phase = Phase::Ended(exit.clone());
        self.set.clear();
        std::mem::take(&mut self.children).into_keys().rev().map(|id| Action::End(id, exit.clone())).collect()
    }

    /// When [`due`](Self::due) is to be called, if at all.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let parked_until = |id: &ChildId| match self.children.get(id)?.state {
            State::Parked(until) => Some(until),
            State::Beginning | State::Up | State::Falling => None,
        };
        if !matches!(self.phase, Phase::Watching) || self.set.is_empty() {
            return None;
        }
        match self.supervision.strategy {
            Strategy::OneForOne => self.set.iter().filter_map(parked_until).min(),
            // The last of them says when, once all are parked.
            Strategy::OneForAll | Strategy::RestForOne => {
                self.set.iter().map(parked_until).collect::<Option<Vec<_>>>()?.into_iter().max()
            }
        }
    }

    /// Time has passed.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Action> {
        self.advance(now)
    }

    /// Takes one restart from the budget. How long to wait for it, or `None` if nothing is left.
    fn spend(&mut self, now: Instant) -> Option<Duration> {
        while self.restarts.front().is_some_and(|&at| now.duration_since(at) > self.supervision.within) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.supervision.restarts {
            return None;
        }
        self.restarts.push_back(now);
        Some(self.supervision.delay(self.restarts.len()))
    }

    fn exhausted(&self, id: ChildId, exit: &Exit) -> Exit {
        let Supervision { restarts, within, .. } = self.supervision;
        let last = match exit {
            Exit::Crashed(text) => format!("crashed: {text}"),
            other => format!("ended: {other:?}"),
        };
        Exit::Crashed(format!("more than {restarts} restarts within {within:?}; child {id} {last}").into())
    }

    /// Marks `id`, which is parked, and whoever is to be begun anew with it, for then.
    fn condemn(&mut self, id: ChildId, due: Instant) {
        self.children.get_mut(&id).expect("it is parked").state = State::Parked(due);
        self.set.insert(id);
        match self.supervision.strategy {
            Strategy::OneForOne => {}
            Strategy::OneForAll => self.set.extend(self.children.keys()),
            Strategy::RestForOne => self.set.extend(self.children.range(id..).map(|(id, _)| id)),
        }
    }

    /// What can be done now.
    fn advance(&mut self, now: Instant) -> Vec<Action> {
        match &self.phase {
            Phase::Folded | Phase::Ended(_) => Vec::new(),
            Phase::Folding(exit) => {
                let exit = exit.clone();
                match self.children.iter_mut().rev().find(|(_, child)| !matches!(child.state, State::Parked(_))) {
                    Some((&id, child)) => fell(id, child),
                    None => {
                        self.set.clear();
                        self.phase = Phase::Folded;
                        vec![Action::Report(exit)]
                    }
                }
            }
            Phase::Watching if self.supervision.strategy == Strategy::OneForOne => {
                let is_due = |id: &ChildId| matches!(self.children[id].state, State::Parked(until) if until <= now);
                let due: Vec<_> = self.set.iter().copied().filter(is_due).collect();
                due.into_iter().map(|id| self.begin_one(id)).collect()
            }
            Phase::Watching => {
                let up = |id: &&ChildId| !matches!(self.children[id].state, State::Parked(_));
                if let Some(id) = self.set.iter().rev().find(up).copied() {
                    let child = self.children.get_mut(&id).expect("the set is of children");
                    return fell(id, child);
                }
                let is_beginning = self.children.values().any(|child| child.state == State::Beginning);
                if is_beginning || self.next_due().is_some_and(|due| due > now) {
                    return Vec::new();
                }
                self.set.first().copied().map(|id| self.begin_one(id)).into_iter().collect()
            }
        }
    }

    fn begin_one(&mut self, id: ChildId) -> Action {
        self.set.remove(&id);
        self.children.get_mut(&id).expect("the set is of children").state = State::Beginning;
        Action::Begin(id)
    }
}

/// Has a child brought down, unless that was said before.
fn fell(id: ChildId, child: &mut Child) -> Vec<Action> {
    if child.state == State::Falling {
        return Vec::new();
    }
    child.state = State::Falling;
    vec![Action::Interrupt(id)]
}

#[cfg(test)]
mod tests {
    //! A core against children that fail as they like, on a clock of its own: a thousand seeds for each strategy.

    use super::*;
    use dmrpc_test_random::Random;
    use std::collections::HashMap;

    /// What a child really does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Real {
        Parked,
        Beginning,
        Up,
        /// Has been told to fall.
        Falling,
    }

    struct World {
        core: Core,
        strategy: Strategy,
        children: BTreeMap<ChildId, Real>,
        policies: HashMap<ChildId, Restart>,
        now: Instant,
        report: Option<Exit>,
        /// Restarts of failures, as the world saw them.
        failures: VecDeque<Instant>,
        /// There were more than the budget has.
        is_spent: bool,
        seed: u64,
    }

    const RESTARTS: usize = 4;
    const WITHIN: Duration = Duration::from_secs(10);

    impl World {
        fn new(strategy: Strategy, seed: u64) -> Self {
            let supervision = Supervision::default()
                .strategy(strategy)
                .budget(RESTARTS, WITHIN)
                .backoff(Duration::from_millis(seed % 3 * 400), Duration::from_secs(2));
            Self {
                core: Core::new(supervision),
                strategy,
                children: BTreeMap::new(),
                policies: HashMap::new(),
                now: Instant::now(),
                report: None,
                failures: VecDeque::new(),
                is_spent: false,
                seed,
            }
        }

        fn act(&mut self, actions: Vec<Action>) {
            for action in actions {
                let seed = self.seed;
                match action {
                    Action::Interrupt(id) => {
                        let was = self.children[&id];
                        assert!(matches!(was, Real::Beginning | Real::Up), "seed {seed}: {id} is told to fall once");
                        let later = self.children.range(id + 1..).filter(|(_, real)| **real == Real::Falling);
                        assert_eq!(later.count(), 0, "seed {seed}: one at a time, last first");
                        self.children.insert(id, Real::Falling);
                    }
                    Action::Begin(id) => {
                        assert_eq!(self.children[&id], Real::Parked, "seed {seed}: {id} begins when it is down");
                        if self.strategy == Strategy::OneForAll {
                            let falling = self.children.values().filter(|real| **real == Real::Falling);
                            assert_eq!(falling.count(), 0, "seed {seed}: nobody begins while others fall");
                        }
                        if self.strategy != Strategy::OneForOne {
                            let beginning = self.children.values().filter(|real| **real == Real::Beginning);
                            assert_eq!(beginning.count(), 0, "seed {seed}: one at a time");
                        }
                        self.children.insert(id, Real::Beginning);
                    }
                    Action::End(id, _) => {
                        assert_eq!(self.children.remove(&id), Some(Real::Parked), "seed {seed}");
                        let more = self.core.gone(id, self.now);
                        self.act(more);
                    }
                    Action::Report(exit) => {
                        let up = self.children.values().filter(|real| **real != Real::Parked);
                        assert_eq!(up.count(), 0, "seed {seed}: all are down");
                        assert_eq!(self.report.replace(exit), None, "seed {seed}: one report");
                    }
                }
            }
        }

        /// A child that is up ends by itself; one that is to fall ends at last.
        fn end(&mut self, id: ChildId, exit: &Exit) {
            let was = self.children.insert(id, Real::Parked);
            let counts = match self.policies[&id] {
                Restart::Always => true,
                Restart::OnCrash => exit.is_failure(),
                Restart::Never => false,
            };
            if matches!(was, Some(Real::Beginning | Real::Up)) && counts && self.report.is_none() {
                self.failures.push_back(self.now);
                let recent = self.failures.iter().filter(|&&at| self.now - at <= WITHIN).count();
                self.is_spent |= recent > RESTARTS;
            }
            let actions = self.core.parked(id, exit, self.now);
            self.act(actions);
        }

        /// The first child that begins has started, if there is one.
        fn begun(&mut self) -> bool {
            let Some((&id, real)) = self.children.iter_mut().find(|(_, real)| **real == Real::Beginning) else {
                return false;
            };
            *real = Real::Up;
            let actions = self.core.begun(id, self.now);
            self.act(actions);
            true
        }

        fn step(&mut self, random: &mut Random) {
            let up: Vec<_> = self
                .children
                .iter()
                .filter(|(_, real)| **real != Real::Parked)
                .map(|(&id, real)| (id, *real))
                .collect();
            match random.below(10) {
                0 if self.children.len() < 8 => {
                    let id = self.policies.len() as ChildId;
                    let restart = [Restart::Always, Restart::OnCrash, Restart::Never][random.below(3) as usize];
                    self.policies.insert(id, restart);
                    self.children.insert(id, Real::Parked);
                    let actions = self.core.add(id, restart, self.now);
                    self.act(actions);
                }
                1..=3 if !up.is_empty() => {
                    let (id, _) = up[random.below(up.len() as u64) as usize];
                    let exit = if random.below(3) == 0 { Exit::Stopped } else { Exit::Crashed("by chance".into()) };
                    self.end(id, &exit);
                }
                4 if !up.is_empty() => {
                    let (id, _) = up[random.below(up.len() as u64) as usize];
                    self.children.remove(&id);
                    let actions = self.core.gone(id, self.now);
                    self.act(actions);
                }
                5 | 6 if self.begun() => {}
                _ => {
                    self.now += Duration::from_millis(random.below(3000));
                    let actions = self.core.due(self.now);
                    self.act(actions);
                }
            }
        }

        /// Whoever falls ends, and time passes: invariant 1.
        fn settle(&mut self) {
            for _ in 0..100 {
                if self.begun() {
                    continue;
                }
                let falling = self.children.iter().find(|(_, real)| **real == Real::Falling).map(|(&id, _)| id);
                if let Some(id) = falling {
                    self.end(id, &Exit::Stopped);
                } else if let Some(due) = self.core.next_due() {
                    self.now = self.now.max(due);
                    let actions = self.core.due(self.now);
                    self.act(actions);
                } else {
                    break;
                }
            }
            let seed = self.seed;
            let parked = self.children.values().filter(|real| **real == Real::Parked).count();
            match &self.report {
                None => {
                    assert_eq!(parked, 0, "seed {seed}: nobody is forgotten");
                    assert!(!self.is_spent, "seed {seed}: goes on beyond its budget");
                }
                Some(_) => assert_eq!(parked, self.children.len(), "seed {seed}: all are down"),
            }
        }
    }

    /// Invariants 1 to 3.
    #[test]
    fn children_that_fail_by_chance_are_begun_anew_or_reported() {
        for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
            let mut reports = 0;
            for seed in 0..1_000 {
                let (mut world, mut random) = (World::new(strategy, seed), Random(seed));
                for _ in 0..100 {
                    world.step(&mut random);
                    if let Some(exit) = &world.report {
                        assert!(matches!(exit, Exit::Crashed(_)), "seed {seed}");
                        let failures = &world.failures;
                        let within =
                            |last: Instant| failures.iter().filter(move |at| (last - WITHIN..=last).contains(at));
                        let most = failures.iter().map(|&last| within(last).count()).max().unwrap_or(0);
                        assert!(most > RESTARTS, "seed {seed}: gave up after {most} failures");
                        break;
                    }
                }
                world.settle();
                if let Some(exit) = world.report.take() {
                    reports += 1;
                    if seed % 2 == 0 {
                        world.failures.clear();
                        world.is_spent = false;
                        let actions = world.core.begin(world.now);
                        world.act(actions);
                        world.settle();
                    } else {
                        let actions = world.core.end(&exit);
                        world.act(actions);
                        assert!(world.children.is_empty(), "seed {seed}");
                        let actions = world.core.add(1_000, Restart::Always, world.now);
                        assert_eq!(actions, [Action::End(1_000, exit)], "seed {seed}");
                    }
                } else {
                    let actions = world.core.fold(Exit::Stopped, world.now);
                    world.act(actions);
                    world.settle();
                    assert_eq!(world.report, Some(Exit::Stopped), "seed {seed}");
                }
            }
            assert!(
                (100..=900).contains(&reports),
                "{strategy:?}: {reports} of 1000 gave up: both ways are to be seen"
            );
        }
    }

    #[test]
    fn the_wait_before_a_restart_doubles() {
        let ms = Duration::from_millis;
        let supervision = Supervision::default().backoff(ms(100), ms(450));
        assert_eq!([1, 2, 3, 4, 99].map(|n| supervision.delay(n)), [100, 200, 400, 450, 450].map(ms));
        assert_eq!(Supervision::default().delay(3), Duration::ZERO);
    }

    /// Invariant 2.
    #[test]
    fn the_rest_falls_last_first_and_begins_first_first() {
        let now = Instant::now();
        let mut core = Core::new(Supervision::default().strategy(Strategy::RestForOne));
        for id in 0..4 {
            assert_eq!(core.add(id, Restart::OnCrash, now), [Action::Begin(id)]);
            assert_eq!(core.begun(id, now), []);
        }
        assert_eq!(core.parked(1, &Exit::Crashed("boom".into()), now), [Action::Interrupt(3)]);
        assert_eq!(core.parked(3, &Exit::Stopped, now), [Action::Interrupt(2)]);
        assert_eq!(core.parked(2, &Exit::Crashed("while it fell".into()), now), [Action::Begin(1)]);
        assert_eq!(core.begun(1, now), [Action::Begin(2)]);
        assert_eq!(core.begun(2, now), [Action::Begin(3)]);
        assert_eq!(core.begun(3, now), []);
    }
}
