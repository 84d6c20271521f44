//! H, R and L codes: the failures that people see and look up. `docs/errors/<CODE>.md` explains each one in use.

use std::fmt;

macro_rules! codes {
    ($($code:ident $description:literal),+ $(,)?) => {
        /// An error code of the router (H), the dyno runtime (R) or the log plane (L).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum Code {
            $(#[doc = $description] $code,)+
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$code,)+];

            /// The code as people search for it: `H10`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)+ }
            }

            /// The `desc` of a router line, the words in parentheses of a dyno's line.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$code => $description,)+ }
            }
        }
    };
}

codes! {
    H10 "App crashed",
    H11 "Backlog too deep",
    H12 "Request timeout",
    H13 "Connection closed without response",
    H14 "No web processes running",
    H15 "Idle connection",
    H17 "Poorly formatted HTTP response",
    H18 "Server Request Interrupted",
    H19 "Backend connection timeout",
    H20 "App boot timeout",
    H21 "Backend connection refused",
    H22 "Connection limit reached",
    H24 "Forced close",
    H25 "HTTP restriction",
    H26 "Request Error",
    H27 "Client Request Interrupted",
    H28 "Client Connection Idle",
    H31 "Misdirected Request",
    H32 "TLS Certificate Mismatch",
    H33 "HTTP/2 Stream Broken",
    H34 "All up dynos are quarantined",
    H80 "Maintenance mode",
    H81 "Blank app",
    H99 "Platform error",
    R10 "Boot timeout",
    R12 "Exit timeout",
    R13 "Attach error",
    R14 "Memory quota exceeded",
    R15 "Memory quota vastly exceeded",
    R16 "Detached",
    R17 "Checksum error",
    R99 "Platform error",
    L10 "output buffer overflow",
    L11 "Tail buffer overflow",
    L12 "Local buffer overflow",
    L13 "Local delivery error",
    L14 "certificate validation",
    L15 "Tail buffer temporarily unavailable",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
