//! `GET /apps/{app}/formation/{type}/monitors`: not in Heroku's schema; the shape that the official client's `ps:autoscale`
//! commands read and write.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What scales a process type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// `scale`.
    pub action_type: String,
    /// Id of the app.
    pub app_id: Uuid,
    /// When it was made.
    pub created_at: String,
    /// Id.
    pub id: Uuid,
    /// Whether it acts.
    pub is_active: bool,
    /// Most dynos.
    pub max_quantity: u32,
    /// Fewest dynos.
    pub min_quantity: u32,
    /// `LATENCY_SCALE` or `QUEUE_SCALE`.
    pub name: String,
    /// `app` where people are told that more dynos are needed than there may be.
    pub notification_channels: Vec<String>,
    /// Least minutes between two such words.
    pub notification_period: u32,
    /// `GREATER_OR_EQUAL`.
    pub op: String,
    /// Minutes that are looked at.
    pub period: u32,
    /// Its process type.
    pub process_type: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Milliseconds, or requests that wait for each dyno.
    pub value: u64,
}
