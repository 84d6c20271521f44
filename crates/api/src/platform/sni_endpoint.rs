//! `GET /apps/{app}/sni-endpoints`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// A certificate of an app and the domains that are served with it. Its key never leaves the platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SniEndpoint {
    /// Of which app.
    pub app: Named,
    /// The chain in PEM.
    pub certificate_chain: String,
    /// When it was added.
    pub created_at: String,
    /// A name that somebody gave it; null.
    pub display_name: Option<String>,
    /// Ids of the domains.
    pub domains: Vec<Uuid>,
    /// Id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What the chain's first certificate says.
    pub ssl_cert: SslCert,
    /// When it was last changed.
    pub updated_at: String,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SslCert {
    /// Whether the platform gets and renews it.
    pub acm: bool,
    /// Whether an authority that this machine trusts has signed it.
    #[serde(rename = "ca_signed?")]
    pub ca_signed: bool,
    /// Names that it is for.
    pub cert_domains: Vec<String>,
    /// From when on it is no longer valid.
    pub expires_at: String,
    /// Id.
    pub id: Uuid,
    /// Who signed it.
    pub issuer: String,
    /// Whether it signed itself.
    #[serde(rename = "self_signed?")]
    pub self_signed: bool,
    /// From when on it is valid.
    pub starts_at: String,
    /// Whom it is for.
    pub subject: String,
}
