//! Dyno-seconds, an addition of this platform to the API.

use dozen_domain::{name::ProcessType, size::Size, usage::Month};
use serde::{Deserialize, Serialize};

use super::Named;

/// A month's dyno-seconds of one process type and size of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Which app; one that was destroyed keeps its last name.
    pub app: Named,
    /// The month, of UTC.
    pub month: Month,
    /// The process type; one-offs have their own (`run`, `release`).
    #[serde(rename = "type")]
    pub process_type: ProcessType,
    /// The dyno size.
    pub size: Size,
    /// Seconds, of all dynos together, up to now in the present month.
    pub dyno_seconds: i64,
    /// How many dynos there were.
    pub dynos: u64,
    /// Nobody saw the end of one of them (the machine lost power): the seconds are those for which it was known to run.
    pub estimated: bool,
}
