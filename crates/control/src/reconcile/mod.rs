//! Makes what runs equal to what is wanted. One file a task, each idempotent, run on a period and on a nudge.

pub mod apps;
pub mod autoscale;
pub mod certificates;
pub mod drains;
pub mod driver;
pub mod rollouts;
pub mod routes;
pub mod upkeep;

use dozen_domain::ids::AppId;
use tokio::sync::mpsc;

/// Tells the reconcilers that something about an app changed. Carries no data but which app; cheap to clone.
#[derive(Debug, Clone)]
pub struct Nudge {
    sender: mpsc::UnboundedSender<AppId>,
}

/// The reconcilers' end of a [`Nudge`].
pub type Nudges = mpsc::UnboundedReceiver<AppId>;

impl Nudge {
    /// Makes both ends.
    pub fn channel() -> (Self, Nudges) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender }, receiver)
    }

    /// The wanted state of this app changed (or the app is gone).
    pub fn nudge(&self, app: AppId) {
        // Nobody listens while the role shuts down; the next start looks at every app anyway.
        let _ = self.sender.send(app);
    }
}
