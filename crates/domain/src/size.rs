//! Dyno sizes: memory, CPU share and process limits (Dev Center: dyno types, dyno scaling and process limits, 2024).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A dyno size. Names are matched without regard to case; the wire form is the display name (`Standard-1X`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Size {
    /// 512 MB.
    Eco,
    /// 512 MB, the default.
    Basic,
    /// 512 MB.
    Standard1X,
    /// 1 GB.
    Standard2X,
    /// 2.5 GB.
    PerformanceM,
    /// 14 GB.
    PerformanceL,
    /// 30 GB.
    PerformanceLRam,
    /// 62 GB.
    PerformanceXl,
    /// 126 GB.
    Performance2Xl,
}

/// What a size grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Memory in bytes; more than this is R14.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// CPU shares in cgroup v1 units (1024 is the share of a whole dyno of the base size).
    pub cpu_shares: u64,
    /// Open files of one process.
    pub open_files: u64,
}

impl Size {
    /// All sizes, smallest first.
    pub const ALL: [Self; 9] = [
        Self::Eco,
        Self::Basic,
        Self::Standard1X,
        Self::Standard2X,
        Self::PerformanceM,
        Self::PerformanceL,
        Self::PerformanceLRam,
        Self::PerformanceXl,
        Self::Performance2Xl,
    ];

    /// The name that the API and the CLI show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eco => "Eco",
            Self::Basic => "Basic",
            Self::Standard1X => "Standard-1X",
            Self::Standard2X => "Standard-2X",
            Self::PerformanceM => "Performance-M",
            Self::PerformanceL => "Performance-L",
            Self::PerformanceLRam => "Performance-L-RAM",
            Self::PerformanceXl => "Performance-XL",
            Self::Performance2Xl => "Performance-2XL",
        }
    }

    /// Memory, processes, CPU share and open files of this size.
    pub const fn quota(self) -> Quota {
        const MB: u64 = 1 << 20;
        const GB: u64 = 1 << 30;
        let (memory, pids, cpu_shares) = match self {
            Self::Eco | Self::Basic | Self::Standard1X => (512 * MB, 256, 1024),
            Self::Standard2X => (GB, 512, 2048),
            Self::PerformanceM => (2 * GB + GB / 2, 16_384, 12 * 1024),
            Self::PerformanceL => (14 * GB, 32_768, 50 * 1024),
            Self::PerformanceLRam => (30 * GB, 24_576, 24 * 1024),
            Self::PerformanceXl => (62 * GB, 32_768, 50 * 1024),
            Self::Performance2Xl => (126 * GB, 65_536, 100 * 1024),
        };
        Quota { memory, pids, cpu_shares, open_files: 10_000 }
    }
}

/// No size has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "No such size as {0}. Sizes: eco, basic, standard-1x, standard-2x, performance-m, performance-l, performance-l-ram, performance-xl, performance-2xl."
)]
pub struct Unknown(pub String);

impl FromStr for Size {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let short = match text.to_ascii_lowercase().as_str() {
            "1x" => Some(Self::Standard1X),
            "2x" => Some(Self::Standard2X),
            _ => None,
        };
        short
            .or_else(|| Self::ALL.into_iter().find(|size| size.name().eq_ignore_ascii_case(text)))
            .ok_or_else(|| Unknown(text.to_owned()))
    }
}

impl TryFrom<String> for Size {
    type Error = Unknown;

    fn try_from(text: String) -> Result<Self, Unknown> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.name().to_owned()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
