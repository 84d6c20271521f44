//! `GET /telemetry-drains/{drain}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A telemetry drain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetryDrain {
    /// When it was added.
    pub created_at: String,
    /// Where to.
    pub exporter: Exporter,
    /// Id.
    pub id: Uuid,
    /// Whose.
    pub owner: Owner,
    /// `traces`, `metrics`, `logs`.
    pub signals: Vec<String>,
    /// When it was last changed.
    pub updated_at: String,
}

/// An OpenTelemetry consumer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exporter {
    /// Its URL.
    pub endpoint: String,
    /// Sent with every request; they hold keys.
    pub headers: BTreeMap<String, String>,
    /// `otlphttp` or `otlp` (gRPC).
    #[serde(rename = "type")]
    pub kind: String,
}

/// Whose a drain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Id.
    pub id: Uuid,
    /// `app`; there are no spaces.
    #[serde(rename = "type")]
    pub kind: String,
}
