//! What is recorded of decisions and actions, and for how long.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Period, Rate, Size};

/// What is recorded of decisions and actions. Changes need a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Whether events are recorded. Without them there is no usage either.
    pub enabled: bool,
    /// When an event counts as recorded, and its response may end. `process`: once it is in memory that outlives the
    /// process. `strict`: once it is on the disk, which outlives a power failure and costs a wait for the disk.
    pub durability: Durability,
    /// What happens when there is no room for events. `refuse`: requests are refused with 503 before they reach a
    /// server. `drop`: they go on, and their events are lost and counted.
    pub on_full: OnFull,
    /// Where events wait for the store.
    pub spool: Spool,
    /// What ends before it is known who asks: bad and missing credentials, unknown paths. So many have events of their own;
    /// the others are counted, and events tell how many they were.
    pub unidentified: Unidentified,
    /// How long events stay in the store.
    pub retention: Retention,
    /// Fields that are masked before an event is recorded.
    #[schemars(length(max = 16))]
    pub mask: Vec<MaskedField>,
    /// Most bytes of one body that are recorded, whatever a policy (also a tenant's own) says; up to `64KiB`.
    pub max_body: Size,
    /// File with the key that signs checkpoints and exports, mode 0600; made if missing. Default: the key is in the store,
    /// encrypted, and the same for all replicas; a file `audit.key` in `data_dir` becomes it if the store has none yet.
    pub key_file: Option<PathBuf>,
    /// How often a signed checkpoint over all chains is written.
    pub checkpoint_every: Period,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            enabled: true,
            durability: Durability::Process,
            on_full: OnFull::Refuse,
            spool: Spool::default(),
            unidentified: Unidentified::default(),
            retention: Retention::default(),
            mask: Vec::new(),
            max_body: Size::from_kib(64),
            key_file: None,
            checkpoint_every: Period::from_secs(3600),
        }
    }
}

/// When an event counts as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once it outlives the process.
    Process,
    /// Once it outlives a power failure.
    Strict,
}

/// What happens when there is no room for events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Requests go on, and their events are lost.
    Drop,
    /// Requests are refused.
    Refuse,
}

/// Where events wait for the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// Folder of the files. Default: `spool` in `data_dir`. A local disk; not a network file system.
    pub path: Option<PathBuf>,
    /// Bytes that all files may take; at least three times `segment_size`.
    pub max_size: Size,
    /// Bytes of one file. Two are allocated at start, and another one whenever the last one is begun.
    pub segment_size: Size,
}

impl Default for Spool {
    fn default() -> Self {
        Self { path: None, max_size: Size::from_mib(1024), segment_size: Size::from_mib(8) }
    }
}

/// How many requests that end before it is known who asks have events of their own, in each process. The others are told
/// by tenant, route, outcome and cause, in one event each second that says how many there were and since when. While the spool is more
/// than half full all are, once a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Unidentified {
    /// So many per time.
    pub rate: Rate,
    /// So many at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

impl Default for Unidentified {
    fn default() -> Self {
        Self { rate: Rate::per_second(50), burst: 500 }
    }
}

/// How long events stay in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days that events of requests stay. `0`: for ever.
    #[schemars(range(min = 0, max = 36_500))]
    pub data_days: u32,
    /// Days that events of operators' actions stay. `0`: for ever.
    #[schemars(range(min = 0, max = 36_500))]
    pub control_days: u32,
    /// Days that usage by minute stays; hours and days are kept. `0`: for ever.
    #[schemars(range(min = 0, max = 36_500))]
    pub usage_minute_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { data_days: 90, control_days: 0, usage_minute_days: 14 }
    }
}

/// A field that can be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskedField {
    /// The caller's address: its network only, 24 bits of IPv4 and 48 of IPv6.
    ClientIp,
    /// What went wrong, and reasons.
    Reason,
    /// The tool, prompt or resource.
    Name,
    /// The caller's id. Usage by caller is lost, too.
    Principal,
    /// Bodies of requests: none is recorded, whatever a policy says.
    RequestBody,
    /// Bodies of responses: none is recorded, whatever a policy says.
    ResponseBody,
    /// The hash of the session id.
    Session,
    /// The target's address.
    Target,
}
