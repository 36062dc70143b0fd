//! What runs beside an actor and speaks to it by messages.

use tokio::task::AbortHandle;

/// A timer or a watch of an actor, which ends with it, or with the incarnation of a supervised one.
#[derive(Clone, Debug)]
pub struct Beside(pub(crate) AbortHandle);

impl Beside {
    /// Ends it. A message that it has sent already is not taken back.
    pub fn cancel(&self) {
        self.0.abort();
    }
}
