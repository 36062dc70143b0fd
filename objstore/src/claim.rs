//! The claim of one process to one object, as a state machine.
//!
//! No link, lock or clock: methods say what happened, what they return is what is to be done. `simulation.rs` runs many of
//! them against a model of the memory node, with crashes and delays.
//!
//! 1. From when an object is published until its last reference here is dropped, it is covered by a hold of this session, or
//!    by a loan that was not given back, or the claim is lost and says so. One that was lent and is not published is this
//!    process's own until then: whoever borrows it keeps it by the loan.
//! 2. A loan is given back exactly once, and only when the object is no longer used here or a hold of this session is
//!    confirmed.
//! 3. A hold is given back exactly once.

/// `M`: how an object that is not published yet is made. `L`: a loan.
#[derive(Debug)]
pub(crate) enum Claim<M, L> {
    /// Made here, and nobody else knows of it.
    Unpublished(M),
    /// Made here and lent, and the node does not know of it.
    Lent(M),
    /// This session has a hold, which is this claim's alone.
    Held,
    /// Somebody else's hold covers it, until the loan is given back.
    Borrowed(L),
    /// A hold was asked for. The loan, if there still is one, covers it meanwhile.
    Adopting(Option<L>),
    /// Nothing covers it any more.
    Lost,
}

/// What is to be done when a claim ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Farewell<M, L> {
    /// Take the pages back: nobody else knows of them.
    Recycle(M),
    /// As `Recycle`, of an object that was lent: it came back from all whom it was lent to.
    Withdraw(M),
    /// Give the hold back.
    Release,
    /// Give the loan back.
    Return(L),
    /// Nothing.
    Nothing,
}

impl<M, L> Claim<M, L> {
    /// The object is to be published: how it is made, unless that was said before. The maker gets a hold with it.
    ///
    /// If it is made over a borrowed object, a hold on that is asked for first. Both are in the session's stream, which the
    /// node takes in order; so the base is there when the commit comes, even if its own commit is still on its way in
    /// another session's stream, and its lender can let go of it once the hold is confirmed.
    pub(crate) fn publish(&mut self) -> Option<M> {
        self.replace(|claim| match claim {
            Claim::Unpublished(making) | Claim::Lent(making) => (Claim::Held, Some(making)),
            other => (other, None),
        })
    }

    /// The object is lent before it is published. Whether it is so for the first time.
    pub(crate) fn lend(&mut self) -> bool {
        self.replace(|claim| match claim {
            Claim::Unpublished(making) => (Claim::Lent(making), true),
            other => (other, false),
        })
    }

    /// How the object is made, if it is not published yet.
    pub(crate) fn making(&self) -> Option<&M> {
        match self {
            Claim::Unpublished(making) | Claim::Lent(making) => Some(making),
            _ => None,
        }
    }

    /// The node refused the commit: what the object is made over is gone.
    pub(crate) fn publish_failed(&mut self) {
        if let Claim::Held = self {
            *self = Claim::Lost;
        }
    }

    fn replace<R>(&mut self, step: impl FnOnce(Self) -> (Self, R)) -> R {
        let (after, result) = step(std::mem::replace(self, Claim::Lost));
        *self = after;
        result
    }

    /// A hold of this session's own is wanted. Whether one has to be asked for.
    #[must_use]
    pub(crate) fn adopt(&mut self) -> bool {
        self.replace(|claim| match claim {
            Claim::Borrowed(loan) => (Claim::Adopting(Some(loan)), true),
            other => (other, false),
        })
    }

    /// The link over which it was lent is gone, and the loan with it. Whether a hold has to be asked for.
    #[must_use]
    pub(crate) fn lender_lost(&mut self) -> bool {
        match self {
            Claim::Borrowed(_) => {
                *self = Claim::Adopting(None);
                true
            }
            Claim::Adopting(loan) => {
                *loan = None;
                false
            }
            _ => false,
        }
    }

    /// The hold that was asked for is there, or was refused. Gives the loan that is to be given back.
    #[must_use]
    pub(crate) fn adopted(&mut self, held: bool) -> Option<L> {
        self.replace(|claim| match claim {
            Claim::Adopting(loan) if held => (Claim::Held, loan),
            Claim::Adopting(Some(loan)) => (Claim::Borrowed(loan), None),
            Claim::Adopting(None) => (Claim::Lost, None),
            other => (other, None),
        })
    }

    /// The session is over: its holds are gone, and so are pages that were not published.
    pub(crate) fn session_ended(&mut self) {
        match self {
            Claim::Unpublished(_) | Claim::Lent(_) | Claim::Held | Claim::Adopting(None) => *self = Claim::Lost,
            Claim::Borrowed(_) | Claim::Adopting(Some(_)) | Claim::Lost => {}
        }
    }

    /// Whether nothing covers the object any more.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self, Claim::Lost)
    }

    /// The last reference is dropped. Whoever waits for a hold keeps a reference; only the end of the session lets go of those.
    pub(crate) fn end(&mut self) -> Farewell<M, L> {
        match std::mem::replace(self, Claim::Lost) {
            Claim::Unpublished(making) => Farewell::Recycle(making),
            Claim::Lent(making) => Farewell::Withdraw(making),
            Claim::Held => Farewell::Release,
            Claim::Borrowed(loan) => Farewell::Return(loan),
            Claim::Adopting(Some(loan)) => Farewell::Return(loan),
            Claim::Adopting(None) | Claim::Lost => Farewell::Nothing,
        }
    }
}
