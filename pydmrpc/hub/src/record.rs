//! What travels on the link between a client and the hub, as bytes.
//!
//! A record is one message of the link: a head of 32 bytes and what belongs to it, numbers little endian. Drawn in
//! `docs/python-runtime.md`.
//!
//! ```text
//! byte 0      1       2       4        8          16                     32
//!      ┌──────┬───────┬───────┬────────┬──────────┬──────────────────────┬──────
//!      │ kind │ flags │ short │ count  │ id       │ function             │ tail
//!      └──────┴───────┴───────┴────────┴──────────┴──────────────────────┴──────
//! ```
//!
//! 1. Any bytes are a record or [`Malformed`]; never a panic, and never more memory than the bytes are long, but for a constant.

use crate::id::{ActorId, ClientId, FunctionId, ResultId, TaskId, WorkerId};
use crate::resources::Resources;
use smallvec::SmallVec;
use std::fmt;

/// Length of a record's head.
pub const HEAD_BYTES: usize = 32;
/// The version of all this, in [`Record::Hello`].
pub const VERSION: u32 = 1;

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record that makes no sense: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Results in a record.
pub type Results = SmallVec<[ResultId; 2]>;

/// A value as it travels: bytes, and references of the object store as they are lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Value<'a> {
    /// What they are is between the programs at both ends.
    pub bytes: &'a [u8],
    /// How many references there are.
    pub references: u32,
    /// The references, one after the other.
    pub table: &'a [u8],
}

/// [`Failure`](crate::Failure) as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed<'a> {
    /// It raised this.
    Raised(Value<'a>),
    /// It was cancelled.
    Cancelled,
    /// The worker died, with these last words.
    WorkerDied(&'a str),
    /// The actor ended.
    ActorDied(ActorId, &'a str),
    /// The actor's class raised this.
    ActorNotMade(ActorId, Value<'a>),
    /// The actor is being made again.
    ActorUnavailable(ActorId, &'a str),
    /// The values ended before.
    NoMoreValues,
    /// There will never be what it needs.
    Infeasible(&'a str),
    /// Whoever was to make it is gone.
    Lost(&'a str),
}

/// [`Outcome`](crate::Outcome) as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came<'a> {
    /// The value, or why there is none.
    pub value: Result<Value<'a>, Failed<'a>>,
    /// Results to which it has references.
    pub contains: Results,
}

/// [`Work`](crate::Work) as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What to run.
    pub function: FunctionId,
    /// The arguments.
    pub payload: Value<'a>,
    /// Results whose values the arguments need.
    pub needs: Results,
    /// Results to which they have references.
    pub contains: Results,
    /// How many values it returns.
    pub returns: u32,
    /// How often it may be tried again.
    pub retries: u32,
    /// Whether also if it raises.
    pub retry_raised: bool,
}

/// Who says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A driver.
    Driver,
    /// A worker that the hub wished for, with what it was told so that it can prove that.
    Worker(WorkerId, u64),
}

/// A message of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first of a client.
    Hello {
        /// Who it is.
        who: Who,
        /// Its process.
        pid: u32,
    },
    /// The first of the hub.
    Welcome {
        /// What the client is called from now on.
        client: ClientId,
        /// Where the memory node is.
        store: &'a str,
        /// What else there is to know; the programs' affair.
        about: &'a [u8],
    },
    /// A function, class or method; before the first record that has its name.
    Function {
        /// Its name.
        id: FunctionId,
        /// What it is.
        definition: Value<'a>,
    },
    /// See [`Event::Submit`](crate::Event::Submit).
    Submit {
        /// Its name.
        task: TaskId,
        /// The task that made it.
        parent: Option<TaskId>,
        /// What it is.
        work: Wanted<'a>,
        /// What it occupies.
        resources: Resources,
        /// Where it is to run.
        environment: u64,
    },
    /// See [`Event::Create`](crate::Event::Create).
    Create {
        /// Its name.
        actor: ActorId,
        /// Its class and arguments.
        work: Wanted<'a>,
        /// What it occupies.
        resources: Resources,
        /// Where it is to run.
        environment: u64,
        /// Namespace and name.
        name: Option<(String, String)>,
        /// Whether it stays without handles.
        detached: bool,
        /// Whether a call that is not ready lets those behind it go before it.
        unordered: bool,
    },
    /// See [`Event::Call`](crate::Event::Call).
    Call {
        /// Its name.
        task: TaskId,
        /// Whom.
        actor: ActorId,
        /// The task that made it.
        parent: Option<TaskId>,
        /// What it is.
        work: Wanted<'a>,
    },
    /// See [`Action::Run`](crate::Action::Run).
    Run {
        /// Its name.
        task: TaskId,
        /// The actor.
        actor: Option<ActorId>,
        /// Whether it is to be made.
        create: bool,
        /// What to run.
        function: FunctionId,
        /// The arguments.
        payload: Value<'a>,
        /// The values that they need.
        values: SmallVec<[Value<'a>; 1]>,
        /// Results that the worker is given with them, once each.
        given: Results,
        /// How many values it returns.
        returns: u32,
    },
    /// See [`Event::Finished`](crate::Event::Finished).
    Finished {
        /// What was run.
        task: TaskId,
        /// What came of it.
        outcomes: SmallVec<[Came<'a>; 1]>,
        /// How long it ran, in microseconds.
        micros: u32,
    },
    /// See [`Event::Yielded`](crate::Event::Yielded).
    Yielded {
        /// Which value of which task.
        result: ResultId,
        /// The value.
        outcome: Came<'a>,
    },
    /// See [`Action::Deliver`](crate::Action::Deliver).
    Deliver {
        /// Which.
        result: ResultId,
        /// What it is.
        outcome: Came<'a>,
    },
    /// See [`Event::Want`](crate::Event::Want).
    Want(Results),
    /// The client has references that it was not given: it holds these from now on.
    Hold(Results),
    /// The results are to be kept for a while: references to them are on their way outside of links.
    Grant(Results),
    /// See [`Event::Release`](crate::Event::Release).
    Release(SmallVec<[(ResultId, u32); 2]>),
    /// See [`Event::Blocked`](crate::Event::Blocked).
    Blocked,
    /// See [`Event::Unblocked`](crate::Event::Unblocked).
    Unblocked,
    /// See [`Action::Recall`](crate::Action::Recall).
    Recall {
        /// How many.
        most: u32,
    },
    /// See [`Event::Returned`](crate::Event::Returned).
    Returned(SmallVec<[TaskId; 4]>),
    /// See [`Action::Interrupt`](crate::Action::Interrupt).
    Interrupt {
        /// Which.
        task: TaskId,
    },
    /// See [`Event::Cancel`](crate::Event::Cancel).
    Cancel {
        /// Which.
        task: TaskId,
        /// Whether its worker may be killed for it.
        force: bool,
        /// Whether those that it made are cancelled, too.
        recursive: bool,
    },
    /// See [`Event::Kill`](crate::Event::Kill).
    Kill {
        /// Whom.
        actor: ActorId,
        /// Whether it may be made again.
        restart: bool,
    },
    /// Whoever calls the worker waits, and nothing else runs: it had better be on this processor; none for any.
    Near {
        /// Which.
        cpu: Option<u32>,
    },
    /// A worker printed a line while it worked for a driver elsewhere.
    Printed {
        /// Its process.
        pid: u32,
        /// Whether to the standard error output.
        is_error: bool,
        /// The line.
        line: &'a str,
    },
    /// See [`Action::Exit`](crate::Action::Exit).
    Exit,
    /// See [`Event::Exits`](crate::Event::Exits).
    Exits,
    /// A question of a client's to the hub.
    Ask {
        /// The client's number of it.
        number: u64,
        /// What is asked; the programs' affair.
        what: &'a [u8],
    },
    /// What the hub says to it.
    Answer {
        /// The number of the question.
        number: u64,
        /// What it says.
        what: &'a [u8],
        /// Results that the client is given with it, once each.
        given: Results,
    },
    /// The hub asks what the client holds.
    Census {
        /// The hub's number of it.
        number: u64,
    },
    /// What a client says to that.
    Holdings {
        /// The hub's number of it.
        number: u64,
        /// What it holds; the programs' affair.
        what: &'a [u8],
    },
    /// The receiver is done with loans of the sender.
    Loans(SmallVec<[u64; 4]>),
}

macro_rules! kinds {
    ($($name:ident = $number:literal)*) => { $(const $name: u8 = $number;)* };
}

kinds! {
    HELLO = 1 WELCOME = 2 FUNCTION = 3 SUBMIT = 4 CREATE = 5 CALL = 6 RUN = 7 FINISHED = 8 YIELDED = 9 DELIVER = 10 WANT = 11 HOLD = 12
    GRANT = 13 RELEASE = 14 BLOCKED = 15 UNBLOCKED = 16 RECALL = 17 RETURNED = 18 INTERRUPT = 19 CANCEL = 20 KILL = 21 EXIT = 22
    EXITS = 23 ASK = 24 ANSWER = 25 LOANS = 26 NEAR = 27 PRINTED = 28 CENSUS = 29 HOLDINGS = 30
}

/// In `flags`: there is an actor, a parent, a name.
const SOME: u8 = 1;
/// In `flags`: make the actor; keep it; use force; make it again.
const FIRST: u8 = 2;
/// In `flags`: also those below; also if it raises.
const SECOND: u8 = 4;
/// In `flags`: in any order.
const THIRD: u8 = 8;

const NONE: TaskId = TaskId { client: ClientId(u32::MAX), number: u32::MAX };

fn packed(task: TaskId) -> u64 {
    u64::from(task.client.0) << 32 | u64::from(task.number)
}

fn unpacked(id: u64) -> TaskId {
    TaskId { client: ClientId((id >> 32) as u32), number: id as u32 }
}

/// A record in the making.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl Writer<'_> {
    fn head(&mut self, kind: u8, flags: u8, count: usize, id: u64, function: FunctionId) {
        let mut head = [0; HEAD_BYTES];
        (head[0], head[1]) = (kind, flags);
        head[4..8].copy_from_slice(&(count as u32).to_le_bytes());
        head[8..16].copy_from_slice(&id.to_le_bytes());
        head[16..].copy_from_slice(&function.0.to_le_bytes());
        self.out.extend_from_slice(&head);
    }

    fn plain(&mut self, kind: u8, flags: u8, count: usize, id: u64) {
        self.head(kind, flags, count, id, FunctionId(0));
    }

    fn u32(&mut self, number: u32) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.out.extend_from_slice(bytes);
    }

    fn value(&mut self, value: &Value<'_>) {
        let mut lengths = [0; 12];
        lengths[..4].copy_from_slice(&(value.bytes.len() as u32).to_le_bytes());
        lengths[4..8].copy_from_slice(&value.references.to_le_bytes());
        lengths[8..].copy_from_slice(&(value.table.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&lengths);
        self.out.extend_from_slice(value.bytes);
        self.out.extend_from_slice(value.table);
    }

    fn result(&mut self, result: ResultId) {
        self.u64(packed(result.task));
        self.u32(result.index);
    }

    fn results(&mut self, results: &[ResultId]) {
        self.u32(results.len() as u32);
        for &result in results {
            self.result(result);
        }
    }

    fn came(&mut self, came: &Came<'_>) {
        let (tag, value, text) = match came.value {
            Ok(value) => (0, Some(value), None),
            Err(Failed::Raised(value)) => (1, Some(value), None),
            Err(Failed::Cancelled) => (2, None, None),
            Err(Failed::WorkerDied(text)) => (3, None, Some(text)),
            Err(Failed::ActorDied(_, text)) => (4, None, Some(text)),
            Err(Failed::ActorNotMade(_, value)) => (5, Some(value), None),
            Err(Failed::ActorUnavailable(_, text)) => (6, None, Some(text)),
            Err(Failed::NoMoreValues) => (7, None, None),
            Err(Failed::Infeasible(text)) => (8, None, Some(text)),
            Err(Failed::Lost(text)) => (9, None, Some(text)),
        };
        self.u32(tag);
        self.results(&came.contains);
        if let Err(Failed::ActorDied(actor, _) | Failed::ActorNotMade(actor, _) | Failed::ActorUnavailable(actor, _)) =
            came.value
        {
            self.u64(packed(actor.0));
        }
        if let Some(value) = value {
            self.value(&value);
        }
        if let Some(text) = text {
            self.bytes(text.as_bytes());
        }
    }

    fn wanted(&mut self, work: &Wanted<'_>) {
        self.u32(work.returns);
        self.u32(work.retries);
        self.results(&work.needs);
        self.results(&work.contains);
        self.value(&work.payload);
    }

    fn resources(&mut self, resources: &Resources) {
        self.u64(resources.cpu);
        self.u64(resources.gpu);
        self.u32(resources.other.len() as u32);
        for (name, &amount) in &resources.other {
            self.bytes(name.as_bytes());
            self.u64(amount);
        }
    }
}

impl<'a> Record<'a> {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut to = Writer { out };
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        match self {
            Record::Hello { who, pid } => {
                let (flags, worker, secret) = match who {
                    Who::Driver => (0, 0, 0),
                    Who::Worker(worker, secret) => (SOME, worker.0, *secret),
                };
                to.plain(HELLO, flags, VERSION as usize, secret);
                to.u32(worker);
                to.u32(*pid);
            }
            Record::Welcome { client, store, about } => {
                to.plain(WELCOME, 0, VERSION as usize, u64::from(client.0));
                to.bytes(store.as_bytes());
                to.bytes(about);
            }
            Record::Function { id, definition } => {
                to.head(FUNCTION, 0, 0, 0, *id);
                to.value(definition);
            }
            Record::Submit { task, parent, work, resources, environment } => {
                let flags = flag(parent.is_some(), SOME) | flag(work.retry_raised, SECOND);
                to.head(SUBMIT, flags, 0, packed(*task), work.function);
                to.u64(packed(parent.unwrap_or(NONE)));
                to.u64(*environment);
                to.resources(resources);
                to.wanted(work);
            }
            Record::Create { actor, work, resources, environment, name, detached, unordered } => {
                let flags = flag(name.is_some(), SOME)
                    | flag(*detached, FIRST)
                    | flag(work.retry_raised, SECOND)
                    | flag(*unordered, THIRD);
                to.head(CREATE, flags, 0, packed(actor.0), work.function);
                to.u64(*environment);
                to.resources(resources);
                if let Some((namespace, name)) = name {
                    to.bytes(namespace.as_bytes());
                    to.bytes(name.as_bytes());
                }
                to.wanted(work);
            }
            Record::Call { task, actor, parent, work } => {
                let flags = flag(parent.is_some(), SOME) | flag(work.retry_raised, SECOND);
                to.head(CALL, flags, 0, packed(*task), work.function);
                to.u64(packed(parent.unwrap_or(NONE)));
                to.u64(packed(actor.0));
                to.wanted(work);
            }
            Record::Run { task, actor, create, function, payload, values, given, returns } => {
                let flags = flag(actor.is_some(), SOME) | flag(*create, FIRST);
                to.head(RUN, flags, *returns as usize, packed(*task), *function);
                to.u64(packed(actor.map_or(NONE, |actor| actor.0)));
                to.results(given);
                to.u32(values.len() as u32);
                to.value(payload);
                for value in values {
                    to.value(value);
                }
            }
            Record::Finished { task, outcomes, micros } => {
                to.head(FINISHED, 0, outcomes.len(), packed(*task), FunctionId(u128::from(*micros)));
                for outcome in outcomes {
                    to.came(outcome);
                }
            }
            Record::Yielded { result, outcome } => {
                to.plain(YIELDED, 0, result.index as usize, packed(result.task));
                to.came(outcome);
            }
            Record::Deliver { result, outcome } => {
                to.plain(DELIVER, 0, result.index as usize, packed(result.task));
                to.came(outcome);
            }
            Record::Want(results) => {
                to.plain(WANT, 0, 0, 0);
                to.results(results);
            }
            Record::Hold(results) => {
                to.plain(HOLD, 0, 0, 0);
                to.results(results);
            }
            Record::Grant(results) => {
                to.plain(GRANT, 0, 0, 0);
                to.results(results);
            }
            Record::Release(results) => {
                to.plain(RELEASE, 0, results.len(), 0);
                for &(result, count) in results {
                    to.result(result);
                    to.u32(count);
                }
            }
            Record::Blocked => to.plain(BLOCKED, 0, 0, 0),
            Record::Unblocked => to.plain(UNBLOCKED, 0, 0, 0),
            Record::Recall { most } => to.plain(RECALL, 0, *most as usize, 0),
            Record::Returned(tasks) => {
                to.plain(RETURNED, 0, tasks.len(), 0);
                for &task in tasks {
                    to.u64(packed(task));
                }
            }
            Record::Interrupt { task } => to.plain(INTERRUPT, 0, 0, packed(*task)),
            Record::Cancel { task, force, recursive } => {
                to.plain(CANCEL, flag(*force, FIRST) | flag(*recursive, SECOND), 0, packed(*task));
            }
            Record::Kill { actor, restart } => to.plain(KILL, flag(*restart, FIRST), 0, packed(actor.0)),
            Record::Near { cpu } => to.plain(NEAR, flag(cpu.is_some(), SOME), cpu.unwrap_or(0) as usize, 0),
            Record::Printed { pid, is_error, line } => {
                to.plain(PRINTED, flag(*is_error, FIRST), *pid as usize, 0);
                to.bytes(line.as_bytes());
            }
            Record::Exit => to.plain(EXIT, 0, 0, 0),
            Record::Exits => to.plain(EXITS, 0, 0, 0),
            Record::Ask { number, what } => {
                to.plain(ASK, 0, 0, *number);
                to.bytes(what);
            }
            Record::Answer { number, what, given } => {
                to.plain(ANSWER, 0, 0, *number);
                to.results(given);
                to.bytes(what);
            }
            Record::Census { number } => to.plain(CENSUS, 0, 0, *number),
            Record::Holdings { number, what } => {
                to.plain(HOLDINGS, 0, 0, *number);
                to.bytes(what);
            }
            Record::Loans(numbers) => {
                to.plain(LOANS, 0, numbers.len(), 0);
                for &number in numbers {
                    to.u64(number);
                }
            }
        }
    }

    /// The record that `bytes` are, wholly.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for any other bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, tail) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Malformed("shorter than a head"))?;
        let (kind, flags) = (head[0], head[1]);
        let count = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
        let id = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
        let function = FunctionId(u128::from_le_bytes(head[16..].try_into().expect("sixteen bytes")));
        let task = unpacked(id);
        let has = |flag: u8| flags & flag != 0;
        let mut from = Reader(tail);
        let record = match kind {
            HELLO => {
                if count != VERSION {
                    return Err(Malformed("another version"));
                }
                let (worker, pid) = (WorkerId(from.u32()?), from.u32()?);
                Record::Hello { who: if has(SOME) { Who::Worker(worker, id) } else { Who::Driver }, pid }
            }
            WELCOME => {
                if count != VERSION {
                    return Err(Malformed("another version"));
                }
                Record::Welcome { client: ClientId(id as u32), store: from.text()?, about: from.bytes()? }
            }
            FUNCTION => Record::Function { id: function, definition: from.value()? },
            SUBMIT => {
                let parent = unpacked(from.u64()?);
                Record::Submit {
                    task,
                    parent: has(SOME).then_some(parent),
                    environment: from.u64()?,
                    resources: from.resources()?,
                    work: from.wanted(function, has(SECOND))?,
                }
            }
            CREATE => Record::Create {
                actor: ActorId(task),
                environment: from.u64()?,
                resources: from.resources()?,
                name: if has(SOME) { Some((from.text()?.to_owned(), from.text()?.to_owned())) } else { None },
                detached: has(FIRST),
                unordered: has(THIRD),
                work: from.wanted(function, has(SECOND))?,
            },
            CALL => {
                let parent = unpacked(from.u64()?);
                Record::Call {
                    task,
                    parent: has(SOME).then_some(parent),
                    actor: ActorId(unpacked(from.u64()?)),
                    work: from.wanted(function, has(SECOND))?,
                }
            }
            RUN => {
                let actor = unpacked(from.u64()?);
                let given = from.results()?;
                let values = from.u32()?;
                let payload = from.value()?;
                Record::Run {
                    task,
                    actor: has(SOME).then_some(ActorId(actor)),
                    create: has(FIRST),
                    function,
                    payload,
                    values: (0..values).map(|_| from.value()).collect::<Result<_, _>>()?,
                    given,
                    returns: count,
                }
            }
            FINISHED => {
                let outcomes = (0..count).map(|_| from.came()).collect::<Result<_, _>>()?;
                Record::Finished { task, outcomes, micros: function.0 as u32 }
            }
            YIELDED => Record::Yielded { result: task.result(count), outcome: from.came()? },
            DELIVER => Record::Deliver { result: task.result(count), outcome: from.came()? },
            WANT => Record::Want(from.results()?),
            HOLD => Record::Hold(from.results()?),
            GRANT => Record::Grant(from.results()?),
            RELEASE => {
                Record::Release((0..count).map(|_| Ok((from.result()?, from.u32()?))).collect::<Result<_, _>>()?)
            }
            BLOCKED => Record::Blocked,
            UNBLOCKED => Record::Unblocked,
            RECALL => Record::Recall { most: count },
            RETURNED => Record::Returned((0..count).map(|_| from.u64().map(unpacked)).collect::<Result<_, _>>()?),
            INTERRUPT => Record::Interrupt { task },
            CANCEL => Record::Cancel { task, force: has(FIRST), recursive: has(SECOND) },
            KILL => Record::Kill { actor: ActorId(task), restart: has(FIRST) },
            NEAR => Record::Near { cpu: has(SOME).then_some(count) },
            PRINTED => Record::Printed { pid: count, is_error: has(FIRST), line: from.text()? },
            EXIT => Record::Exit,
            EXITS => Record::Exits,
            ASK => Record::Ask { number: id, what: from.bytes()? },
            ANSWER => {
                let given = from.results()?;
                Record::Answer { number: id, what: from.bytes()?, given }
            }
            CENSUS => Record::Census { number: id },
            HOLDINGS => Record::Holdings { number: id, what: from.bytes()? },
            LOANS => Record::Loans((0..count).map(|_| from.u64()).collect::<Result<_, _>>()?),
            _ => return Err(Malformed("of no known kind")),
        };
        if from.0.is_empty() { Ok(record) } else { Err(Malformed("longer than it is")) }
    }
}

/// What of a record was not read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        self.0.split_off(..count).ok_or(Malformed("cut short"))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        let (bytes, references, table) = (self.u32()?, self.u32()?, self.u32()?);
        // Each reference has more bytes than one.
        if references > table {
            return Err(Malformed("more references than bytes of them"));
        }
        Ok(Value { bytes: self.take(bytes as usize)?, references, table: self.take(table as usize)? })
    }

    fn result(&mut self) -> Result<ResultId, Malformed> {
        Ok(ResultId { task: unpacked(self.u64()?), index: self.u32()? })
    }

    fn results(&mut self) -> Result<Results, Malformed> {
        let count = self.u32()?;
        (0..count).map(|_| self.result()).collect()
    }

    fn actor(&mut self) -> Result<ActorId, Malformed> {
        Ok(ActorId(unpacked(self.u64()?)))
    }

    fn came(&mut self) -> Result<Came<'a>, Malformed> {
        let tag = self.u32()?;
        let contains = self.results()?;
        let value = match tag {
            0 => Ok(self.value()?),
            1 => Err(Failed::Raised(self.value()?)),
            2 => Err(Failed::Cancelled),
            3 => Err(Failed::WorkerDied(self.text()?)),
            4 => Err(Failed::ActorDied(self.actor()?, self.text()?)),
            5 => Err(Failed::ActorNotMade(self.actor()?, self.value()?)),
            6 => Err(Failed::ActorUnavailable(self.actor()?, self.text()?)),
            7 => Err(Failed::NoMoreValues),
            8 => Err(Failed::Infeasible(self.text()?)),
            9 => Err(Failed::Lost(self.text()?)),
            _ => return Err(Malformed("outcome of no known kind")),
        };
        Ok(Came { value, contains })
    }

    fn wanted(&mut self, function: FunctionId, retry_raised: bool) -> Result<Wanted<'a>, Malformed> {
        Ok(Wanted {
            function,
            returns: self.u32()?,
            retries: self.u32()?,
            needs: self.results()?,
            contains: self.results()?,
            payload: self.value()?,
            retry_raised,
        })
    }

    fn resources(&mut self) -> Result<Resources, Malformed> {
        let mut resources = Resources { cpu: self.u64()?, gpu: self.u64()?, ..Resources::default() };
        for _ in 0..self.u32()? {
            let name = self.text()?.to_owned();
            let amount = self.u64()?;
            if resources.other.insert(name, amount).is_some() {
                return Err(Malformed("a resource twice"));
            }
        }
        Ok(resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smallvec::smallvec;

    fn examples() -> Vec<Record<'static>> {
        let task = TaskId { client: ClientId(7), number: 9 };
        let result = task.result(2);
        let value = Value { bytes: b"abc", references: 1, table: b"ref" };
        let work = Wanted {
            function: FunctionId(1 << 100),
            payload: value,
            needs: smallvec![result],
            contains: smallvec![result, ActorId(task).handle()],
            returns: 3,
            retries: u32::MAX,
            retry_raised: true,
        };
        let resources = Resources { cpu: 500, gpu: 1000, other: [("x".to_owned(), 3)].into() };
        let failures = [
            Failed::Raised(value),
            Failed::Cancelled,
            Failed::WorkerDied("w"),
            Failed::ActorDied(ActorId(task), "a"),
            Failed::ActorNotMade(ActorId(task), value),
            Failed::ActorUnavailable(ActorId(task), "u"),
            Failed::NoMoreValues,
            Failed::Infeasible("i"),
            Failed::Lost("l"),
        ];
        let mut examples = vec![
            Record::Hello { who: Who::Driver, pid: 5 },
            Record::Hello { who: Who::Worker(WorkerId(4), u64::MAX), pid: 5 },
            Record::Welcome { client: ClientId(3), store: "unix:///x", about: b"y" },
            Record::Function { id: FunctionId(u128::MAX), definition: value },
            Record::Submit {
                task,
                parent: Some(task),
                work: work.clone(),
                resources: resources.clone(),
                environment: 8,
            },
            Record::Create {
                actor: ActorId(task),
                work: work.clone(),
                resources,
                environment: 0,
                name: Some(("space".into(), "name".into())),
                detached: true,
                unordered: true,
            },
            Record::Call { task, actor: ActorId(task), parent: None, work },
            Record::Run {
                task,
                actor: Some(ActorId(task)),
                create: true,
                function: FunctionId(2),
                payload: value,
                values: smallvec![value, value],
                given: smallvec![result],
                returns: 1,
            },
            Record::Want(smallvec![result]),
            Record::Hold(smallvec![result]),
            Record::Grant(smallvec![result]),
            Record::Release(smallvec![(result, 4)]),
            Record::Blocked,
            Record::Unblocked,
            Record::Recall { most: u32::MAX },
            Record::Returned(smallvec![task]),
            Record::Interrupt { task },
            Record::Cancel { task, force: true, recursive: false },
            Record::Kill { actor: ActorId(task), restart: true },
            Record::Near { cpu: Some(3) },
            Record::Near { cpu: None },
            Record::Printed { pid: 6, is_error: true, line: "so it is" },
            Record::Exit,
            Record::Exits,
            Record::Ask { number: 1, what: b"what" },
            Record::Answer { number: 1, what: b"that", given: smallvec![result] },
            Record::Census { number: 5 },
            Record::Holdings { number: 5, what: b"these" },
            Record::Loans(smallvec![1, 2]),
            Record::Yielded { result, outcome: Came { value: Ok(value), contains: smallvec![] } },
        ];
        for failure in failures {
            let came = Came { value: Err(failure), contains: smallvec![] };
            examples.push(Record::Finished { task, outcomes: smallvec![came.clone(), came.clone()], micros: 12 });
            examples.push(Record::Deliver { result, outcome: came });
        }
        examples
    }

    #[test]
    fn what_was_written_is_read() {
        for record in examples() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let record: Record<'_> = record;
            assert_eq!(format!("{:?}", Record::decode(&bytes)), format!("{:?}", Ok::<_, Malformed>(record)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }

        #[test]
        fn changed_records_are_records_or_errors(which: prop::sample::Index, at: prop::sample::Index, byte: u8, cut: bool) {
            let mut bytes = Vec::new();
            which.get(&examples()).encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = Record::decode(&bytes);
        }
    }
}
