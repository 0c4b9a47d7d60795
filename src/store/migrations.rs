//! Every migration there is, in both dialects, inside the program.

/// One step of the schema.
pub(super) struct Migration {
    /// File name without dialect and ending: `0001_tenants`.
    pub(super) name: &'static str,
    /// The level of the schema that it belongs to; see [`super::SCHEMA_LEVEL`].
    pub(super) level: i32,
    pub(super) postgres: Steps,
    pub(super) sqlite: Steps,
}

pub(super) struct Steps {
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

impl Migration {
    /// The number in front of its name.
    pub(super) fn version(&self) -> i64 {
        self.name.get(..4).and_then(|number| number.parse().ok()).expect("a test reads every name")
    }
}

macro_rules! migrations {
    ($($level:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            name: $name,
            level: $level,
            postgres: Steps {
                up: include_str!(concat!("../../migrations/postgres/", $name, ".up.sql")),
                down: include_str!(concat!("../../migrations/postgres/", $name, ".down.sql")),
            },
            sqlite: Steps {
                up: include_str!(concat!("../../migrations/sqlite/", $name, ".up.sql")),
                down: include_str!(concat!("../../migrations/sqlite/", $name, ".down.sql")),
            },
        }),*]
    };
}

/// In the order in which they are applied. Numbers below 10: the core; 10–19 identity; 20–29 audit and usage; 30–39
/// health and statistics; 40–49 samples and canaries; 50–59 the control API. What was released is never changed.
pub(super) const MIGRATIONS: &[Migration] = migrations![
    1 "0001_tenants",
    1 "0002_config",
    1 "0003_secrets",
    1 "0004_replicas",
    1 "0005_sealing_keys",
    1 "0006_leaders",
    1 "0007_refusals",
    1 "0009_session_tombstones",
    1 "0010_identity",
    1 "0020_audit",
    1 "0021_usage",
    1 "0022_audit_days",
    1 "0023_audit_rows",
    1 "0030_partitions",
    1 "0031_health",
    1 "0032_metrics",
    1 "0033_usage_partitions",
    1 "0034_analytics",
    1 "0035_monitoring",
    1 "0036_identity_read",
    1 "0037_usage_forgotten",
    1 "0040_samples",
    1 "0041_canaries",
    1 "0050_control",
    1 "0051_custom_roles",
    1 "0052_audit_erasures",
    1 "0053_audit_dropped",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_in_order_and_levels_never_fall() {
        for pair in MIGRATIONS.windows(2) {
            assert!(pair[0].version() < pair[1].version(), "{} {}", pair[0].name, pair[1].name);
            assert!(pair[0].level <= pair[1].level, "{} {}", pair[0].name, pair[1].name);
        }
        assert_eq!(MIGRATIONS.last().unwrap().level, super::super::SCHEMA_LEVEL);
    }

    #[test]
    fn every_file_is_in_the_list() {
        for dialect in ["postgres", "sqlite"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(dialect);
            let mut found: Vec<String> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter_map(|name| name.strip_suffix(".up.sql").map(ToOwned::to_owned))
                .collect();
            found.sort();
            let listed: Vec<&str> = MIGRATIONS.iter().map(|m| m.name).collect();
            assert_eq!(found, listed, "{dialect}");
        }
    }
}
