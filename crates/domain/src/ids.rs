//! One id type for every kind of thing, so that passing a release id where an app id is due does not compile.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// Makes a fresh random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    )+};
}

ids! {
    /// An account: a person who may sign in.
    AccountId,
    /// An app's attachment to an add-on.
    AddonAttachmentId,
    /// An add-on of an app.
    AddonId,
    /// An app.
    AppId,
    /// An OAuth authorization (holds one access token).
    AuthorizationId,
    /// One run of the build of one source.
    BuildId,
    /// One entry in an app's ordered list of buildpacks.
    BuildpackInstallationId,
    /// A timed job of an app.
    CronJobId,
    /// A collaborator's membership of an app.
    CollaboratorId,
    /// A host name of an app.
    DomainId,
    /// A log or telemetry drain of an app.
    DrainId,
    /// One dyno; a restart makes a new one under the same name.
    DynoId,
    /// An app feature.
    FeatureId,
    /// An app's wanted quantity and size of one process type.
    FormationId,
    /// A log session (a URL from which log lines stream).
    LogSessionId,
    /// A region; there is one.
    RegionId,
    /// What scales a process type by how its requests go.
    MonitorId,
    /// One release. The number people see is [`crate::release::Version`].
    ReleaseId,
    /// A slug: the Platform API's name for a built image.
    SlugId,
    /// A certificate of an app, with its key.
    SniEndpointId,
    /// An uploaded source blob.
    SourceId,
    /// A stack; there is one.
    StackId,
    /// An access token, inside an authorization.
    TokenId,
}
