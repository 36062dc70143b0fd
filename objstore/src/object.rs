//! Objects in a memory node, as this process knows them.
//!
//! 1. The claim (`claim.rs`) says what entitles this process to the bytes. Dropping the last reference settles it.
//! 2. An object is published in the session's stream before anything that names it can be sent to anybody; but for a loan that
//!    ends with the lender ([`Object::lend`]). Such an object is published when somebody waits for it, or never.
//! 3. Before this session sends what may wait for another's commit, all that it has lent so far is published, in the order in
//!    which it was lent: no two sessions wait for each other.

use crate::claim::{Claim, Farewell};
use crate::client::Client;
use crate::grant::RawGranted;
use crate::layout::{Layout, Piece};
use crate::loan::Loan;
use crate::session::Undo;
use crate::{AnyRef, Granted, StoreError, Subject, far, fork};
use dmrpc_fabric::link::Body;
use dmrpc_pages::Extent;
use dmrpc_wire::{Commit, Grant, GrantToken, MAX_REF_EXTENTS, ObjectId, Patch, RawExtent, Request, SlotLease};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The most patches of one commit: they fit a head.
pub(crate) const MAX_PATCHES: usize = 3000;

/// An object in a memory node, and this process's claim to it.
pub(crate) struct Object {
    pub(crate) client: Arc<Client>,
    id: ObjectId,
    size: u64,
    claim: Mutex<Claim<Making, Loan>>,
    /// Whether the node has been told of it.
    published: AtomicBool,
    /// The request behind which the node has the object: 0 if it is known to, [`u64::MAX`] if nobody here knows.
    commit: AtomicU64,
    /// Whether nothing covers it any more: what the claim says, to be seen without its lock.
    lost: AtomicBool,
    /// Whether it was there when borrowed references were last looked through.
    aged: AtomicBool,
    /// Where the pages are that came with the reference, from the first page on: not mapped yet.
    hint: (u32, SmallVec<[Extent; 1]>),
    /// Where pages are, mapped: those that were known from the start.
    near: OnceLock<Layout>,
    /// As `near`, all of them, if that did not do.
    whole: OnceLock<Layout>,
    /// All extents, as the node said, where nothing is mapped.
    resolved: OnceLock<Vec<Extent>>,
}

/// How an object is made that is not published yet.
pub(crate) struct Making {
    pub(crate) base: Option<Arc<Object>>,
    pub(crate) patches: SmallVec<[Patch; 1]>,
}

impl Object {
    /// An object made here of pages of the arena.
    pub(crate) fn unpublished(
        client: &Arc<Client>,
        id: ObjectId,
        size: u64,
        making: Making,
        layout: Layout,
    ) -> Arc<Self> {
        if let Some(base) = &making.base
            && base.is_derived_and_unpublished()
        {
            // So that a chain of edits does not keep all that was ever in it. If it can't be now, it will be with this one.
            let _ = base.publish();
        }
        Arc::new(Self {
            client: client.clone(),
            id,
            size,
            claim: Mutex::new(Claim::Unpublished(making)),
            published: AtomicBool::new(false),
            commit: AtomicU64::new(u64::MAX),
            lost: AtomicBool::new(false),
            aged: AtomicBool::new(false),
            hint: (0, SmallVec::new()),
            near: OnceLock::from(layout),
            whole: OnceLock::new(),
            resolved: OnceLock::new(),
        })
    }

    /// An object that this session has a hold on.
    pub(crate) fn held(client: &Arc<Client>, id: ObjectId, size: u64) -> Arc<Self> {
        let object = Arc::new(Self::published(client, id, size, Claim::Held, (0, SmallVec::new())));
        object.set_commit(0);
        object.make_known();
        object
    }

    /// An object that was just written to another host, where these extents are.
    pub(crate) fn put_far(client: &Arc<Client>, id: ObjectId, size: u64, extents: SmallVec<[Extent; 1]>) -> Arc<Self> {
        let object = Arc::new(Self::published(client, id, size, Claim::Held, (0, extents)));
        object.make_known();
        object
    }

    /// An object that was lent. `hint`: extents, from a page on.
    pub(crate) fn borrowed(
        client: &Arc<Client>,
        id: ObjectId,
        size: u64,
        loan: Option<Loan>,
        hint: (u32, SmallVec<[Extent; 1]>),
    ) -> Arc<Self> {
        let claim = loan.map_or(Claim::Lost, Claim::Borrowed);
        let mut object = Self::published(client, id, size, claim, hint);
        if client.local
            && let Some(layout) = object.layout_of_hint()
        {
            object.near = OnceLock::from(layout);
        }
        Arc::new(object)
    }

    fn published(
        client: &Arc<Client>,
        id: ObjectId,
        size: u64,
        claim: Claim<Making, Loan>,
        hint: (u32, SmallVec<[Extent; 1]>),
    ) -> Self {
        Self {
            client: client.clone(),
            id,
            size,
            lost: AtomicBool::new(claim.is_lost()),
            claim: Mutex::new(claim),
            published: AtomicBool::new(true),
            commit: AtomicU64::new(u64::MAX),
            aged: AtomicBool::new(false),
            hint,
            near: OnceLock::new(),
            whole: OnceLock::new(),
            resolved: OnceLock::new(),
        }
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn subject(&self) -> Option<Subject> {
        Some(Subject::Object(self.id))
    }

    /// # Errors
    ///
    /// [`StoreError::Stale`] if nothing covers the object any more.
    pub(crate) fn check_claim(&self) -> Result<(), StoreError> {
        // Acquire: pairs with the releases of whoever lost it; what it covered is not looked at after that.
        if self.lost.load(Ordering::Acquire) {
            return Err(self.client.end_of_session().unwrap_or(StoreError::Stale(Subject::Object(self.id))));
        }
        Ok(())
    }

    // Publishing, holding, letting go.

    /// Changes the claim in a way that may lose it.
    fn change_claim<R>(&self, change: impl FnOnce(&mut Claim<Making, Loan>) -> R) -> R {
        let mut claim = self.claim.lock();
        let result = change(&mut claim);
        // Release: pairs with the acquire of `check_claim`.
        self.lost.store(claim.is_lost(), Ordering::Release);
        result
    }

    fn is_derived_and_unpublished(&self) -> bool {
        self.claim.lock().making().is_some_and(|making| making.base.is_some())
    }

    /// Whether the object may be lent before it is published: what it is made of stays as it is for whoever has mapped it,
    /// also if this process dies.
    fn may_wait(&self) -> bool {
        !self.published.load(Ordering::Acquire) && self.client.local && self.client.arena.is_separate()
    }

    /// Has the object known to those whom it is lent to, and nobody else. It is published when somebody waits for it. For
    /// loans that end with the lender only: if this process dies first, they come to nothing.
    pub(crate) fn lend(self: &Arc<Self>) -> Result<(), StoreError> {
        if !self.may_wait() {
            return self.publish();
        }
        self.client.check_open()?;
        let mut unannounced = self.client.unannounced.lock();
        let mut claim = self.claim.lock();
        if claim.lend() {
            unannounced.add(self);
            drop((claim, unannounced));
            self.make_known();
            return Ok(());
        }
        drop((claim, unannounced));
        self.check_claim()
    }

    /// Sends the commit, unless that was done before.
    pub(crate) fn publish(self: &Arc<Self>) -> Result<(), StoreError> {
        // Acquire: pairs with the release below, so that what follows comes after the commit in the session's stream.
        if self.published.load(Ordering::Acquire) {
            self.client.check_open()?;
            return self.check_claim();
        }
        self.client.check_open()?;
        if self.is_derived_and_unpublished() {
            // The commit may wait for the base's.
            let mut unannounced = self.client.unannounced.lock();
            unannounced.announce();
            return self.publish_in_turn();
        }
        self.publish_in_turn()
    }

    /// As [`publish`](Object::publish); if the object is made over another, after all that was lent before.
    pub(crate) fn publish_in_turn(self: &Arc<Self>) -> Result<(), StoreError> {
        fork::check()?;
        let mut claim = self.claim.lock();
        let Some(making) = claim.making() else {
            drop(claim);
            return self.check_claim();
        };
        let base = match &making.base {
            Some(base) => {
                base.publish_in_turn()?;
                if base.claim.lock().adopt() {
                    self.client.ask_for_holds(std::slice::from_ref(base));
                }
                base.id
            }
            None => ObjectId::NULL,
        };
        if let Some(layout) = self.near.get() {
            for patch in &making.patches {
                let extent = Extent::from(patch.extent);
                if !extent.is_hole() {
                    self.client.write_back(layout, patch.at.get()..patch.at.get() + extent.count, self.size);
                }
            }
        }
        let commit = Commit { id: self.id, base, size: self.size, patches: &making.patches };
        let mut session = self.client.session.lock();
        // Releases go along: they need no wake-up of their own.
        session.send_releases();
        let sequence = session.send(&Request::Commit(commit), Body::new())?;
        session.remember_commit(sequence, self);
        session.flush();
        drop(session);
        let making = claim.publish();
        // Release: pairs with the acquire above.
        self.published.store(true, Ordering::Release);
        drop(claim);
        self.make_known();
        // The base is let go of behind the commit, in the same stream.
        drop(making);
        Ok(())
    }

    fn make_known(self: &Arc<Self>) {
        let mut known = self.client.known.entry(self.id).or_insert_with(|| Arc::downgrade(self));
        if known.strong_count() == 0 {
            *known = Arc::downgrade(self);
        }
    }

    /// Asks for a hold, if this is borrowed.
    fn start_adopting(self: &Arc<Self>) {
        if self.claim.lock().adopt() {
            self.client.adopt(std::slice::from_ref(self));
        }
    }

    /// If this was borrowed and there before, says that a hold is wanted, and is to be asked for.
    pub(crate) fn age(&self) -> Option<bool> {
        // Relaxed: only the I/O thread looks.
        let old = self.aged.swap(true, Ordering::Relaxed);
        let mut claim = self.claim.lock();
        match &*claim {
            Claim::Borrowed(_) if old => Some(claim.adopt()),
            Claim::Borrowed(_) => None,
            _ => Some(false),
        }
    }

    /// Its lender is gone. Whether a hold is to be asked for.
    pub(crate) fn lender_lost(&self) -> bool {
        self.claim.lock().lender_lost()
    }

    /// Nothing covers it: the loan is not its own.
    pub(crate) fn disown(&self) {
        *self.claim.lock() = Claim::Lost;
        self.lost.store(true, Ordering::Release);
    }

    /// The hold that was asked for is there, or was refused.
    pub(crate) fn adopted(self: &Arc<Self>, held: bool) {
        let loan = self.change_claim(|claim| claim.adopted(held));
        if held {
            self.set_commit(0);
            self.make_known();
        }
        if let Some(loan) = loan {
            loan.give_back();
        }
    }

    /// The node refused the commit.
    pub(crate) fn publish_failed(&self) {
        self.change_claim(Claim::publish_failed);
    }

    pub(crate) fn session_ended(&self) {
        self.change_claim(Claim::session_ended);
    }

    pub(crate) async fn keep(self: &Arc<Self>) -> Result<(), StoreError> {
        self.publish()?;
        self.start_adopting();
        if matches!(&*self.claim.lock(), Claim::Held) {
            return Ok(());
        }
        // A request for nothing: it is answered behind the one for the hold.
        self.client.ask("taking a hold", self.subject(), &Request::Hold(&[]), Body::new(), Undo::Nothing).await?;
        match &*self.claim.lock() {
            Claim::Held => Ok(()),
            _ => Err(self.client.end_of_session().unwrap_or(StoreError::Stale(Subject::Object(self.id)))),
        }
    }

    pub(crate) async fn grant(self: &Arc<Self>, of: &AnyRef, time_to_live: Duration) -> Result<Granted, StoreError> {
        self.publish()?;
        // The object may be a borrowed one, whose commit is waited for.
        self.client.announce();
        let mut token = GrantToken([0; 16]);
        getrandom::fill(&mut token.0)
            .map_err(|error| StoreError::Io { doing: "drawing random bytes", why: error.to_string() })?;
        let ttl_ms = u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Grant(Grant { id: self.id, token, ttl_ms: ttl_ms.into() });
        self.client.ask("making a grant", self.subject(), &request, Body::new(), Undo::Nothing).await?;
        let raw = RawGranted {
            id: self.id,
            offset: of.offset.into(),
            length: of.length.into(),
            size: self.size.into(),
            token,
            codec: of.codec.0,
        };
        Ok(Granted::new(raw, &self.client.session.place()))
    }

    // Where the pages are.

    /// Where a range of bytes is, if that is known.
    pub(crate) fn layout(&self, range: &Range<u64>) -> Option<&Layout> {
        match self.near.get() {
            Some(layout) if layout.covers(range) => Some(layout),
            _ => self.whole.get(),
        }
    }

    /// Where a range of bytes is. Asks the node, if need be.
    pub(crate) async fn locate(&self, range: &Range<u64>) -> Result<&Layout, StoreError> {
        self.check_claim()?;
        if let Some(layout) = self.layout(range) {
            return Ok(layout);
        }
        if self.near.get().is_none() && !self.hint.1.is_empty() {
            let layout = self.map(self.hint.0, &self.hint.1).await?;
            let layout = self.near.get_or_init(|| layout);
            if layout.covers(range) {
                return Ok(layout);
            }
        }
        let extents = self.client.resolve(self.id, self.size).await?;
        let layout = self.map(0, &extents).await?;
        let layout = self.whole.get_or_init(|| layout);
        if layout.covers(range) { Ok(layout) } else { Err(StoreError::Malformed("extents that are too few")) }
    }

    /// Whether this session has a hold of its own on it.
    pub(crate) fn is_held(&self) -> bool {
        matches!(&*self.claim.lock(), Claim::Held)
    }

    /// The node has the object when it has applied the request of that number.
    pub(crate) fn set_commit(&self, sequence: u64) {
        // Relaxed: only ever becomes a weaker demand, of which the session's lock says whether it is met.
        self.commit.fetch_min(sequence, Ordering::Relaxed);
    }

    /// Whether the node has it, held by this session: then its pages are nothing else's as long as this session lasts and
    /// this reference does.
    pub(crate) fn is_fixed(&self) -> bool {
        // Relaxed: as above.
        let commit = self.commit.load(Ordering::Relaxed);
        self.is_held() && (commit == 0 || self.client.session.lock().state().has_applied(commit))
    }

    /// The extents of some pages. Asks the node, if need be, once.
    pub(crate) async fn extents(&self, pages: Range<u32>) -> Result<SmallVec<[Extent; 4]>, StoreError> {
        let hinted = self.hinted(pages.clone());
        if !hinted.is_empty() {
            return Ok(hinted.into_iter().map(Extent::from).collect());
        }
        let resolved = match self.resolved.get() {
            Some(resolved) => resolved,
            None => {
                let resolved = self.client.resolve(self.id, self.size).await?;
                self.resolved.get_or_init(|| resolved)
            }
        };
        Ok(far::cut(resolved, &pages))
    }

    async fn map(&self, first_page: u32, extents: &[Extent]) -> Result<Layout, StoreError> {
        let mut pieces = SmallVec::new();
        let mut at = first_page;
        for &extent in extents {
            if extent.is_hole() {
                pieces.push(Piece::hole(at, extent.count));
            } else {
                let segment = self.client.segment(extent.segment.0).await?;
                pieces.push(Piece::new(at, extent, &segment)?);
            }
            at = at.checked_add(extent.count).ok_or(StoreError::Malformed("extents of too many pages"))?;
        }
        let layout = Layout::new(first_page, pieces, self.client.page_size);
        self.client.drop_lines(&layout, self.size);
        Ok(layout)
    }

    /// The extents of some pages, as they came with the reference; none if they did not.
    pub(crate) fn hinted(&self, pages: Range<u32>) -> SmallVec<[RawExtent; MAX_REF_EXTENTS]> {
        let mut found = SmallVec::new();
        let (mut at, mut missing) = (self.hint.0, pages.start);
        for &extent in &self.hint.1 {
            let Some(end) = at.checked_add(extent.count) else { break };
            if at <= missing && missing < end && missing < pages.end {
                let behind = extent.split_at(missing - at).map_or(extent, |(_, behind)| behind);
                let part = behind.split_at(pages.end - missing).map_or(behind, |(part, _)| part);
                missing += part.count;
                found.push(part.into());
            }
            at = end;
        }
        if missing == pages.end { found } else { SmallVec::new() }
    }

    /// As [`map`](Object::map) of the hint, if all segments are mapped already.
    fn layout_of_hint(&self) -> Option<Layout> {
        if self.hint.1.is_empty() {
            return None;
        }
        let mut pieces = SmallVec::new();
        let mut at = self.hint.0;
        for &extent in &self.hint.1 {
            if extent.is_hole() {
                pieces.push(Piece::hole(at, extent.count));
            } else {
                let segment = self.client.segments.get(extent.segment.0)?;
                pieces.push(Piece::new(at, extent, &segment).ok()?);
            }
            at = at.checked_add(extent.count)?;
        }
        let layout = Layout::new(self.hint.0, pieces, self.client.page_size);
        self.client.drop_lines(&layout, self.size);
        Some(layout)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if fork::is_fork() {
            // Everything is the parent's affair.
            return;
        }
        let farewell = self.claim.get_mut().end();
        if !matches!(farewell, Farewell::Recycle(_) | Farewell::Return(_)) {
            self.client.known.remove_if(&self.id, |_, known| known.strong_count() == 0);
        }
        match farewell {
            Farewell::Recycle(making) | Farewell::Withdraw(making) => {
                let extents = making.patches.iter().map(|patch| Extent::from(patch.extent));
                let slot = SlotLease::new(self.id.slot(), self.id.generation());
                self.client.arena.give_back(extents.filter(|extent| !extent.is_hole()), &[slot]);
            }
            Farewell::Release => self.client.session.release(self.id),
            Farewell::Return(loan) => loan.give_back(),
            Farewell::Nothing => {}
        }
    }
}
