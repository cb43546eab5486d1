//! `SetLogLevel` and `Drain`: what concerns the process.

use quorate_consensus::wire::{DrainResponse, SetLogLevelRequest, SetLogLevelResponse};
use quorate_telemetry::LogSettings;

use super::Operators;
use crate::status::ApiError;

/// A node has ended so long after it began to drain.
const DRAIN_MS: u64 = 30_000;

pub(super) fn set_log_level(
    node: &Operators,
    by: &str,
    request: SetLogLevelRequest,
) -> Result<SetLogLevelResponse, ApiError> {
    let Some(log) = &node.log else {
        return Err(ApiError::NotPossible {
            reason: "NO_LOG",
            why: "the process that this node runs in keeps its log to itself".to_owned(),
        });
    };
    let previous = log.level();
    let settings = LogSettings {
        level: request.level,
        ..LogSettings::default()
    };
    log.set_level(&settings)
        .map_err(|error| ApiError::Invalid {
            field: "level",
            detail: error.to_string(),
        })?;
    let level = log.level();
    tracing::warn!(operator = by, level, previous, "operator.log_level");
    Ok(SetLogLevelResponse { level, previous })
}

pub(super) fn drain(node: &Operators, by: &str) -> DrainResponse {
    tracing::warn!(operator = by, "operator.drain");
    node.drain.cancel();
    DrainResponse {
        within_ms: DRAIN_MS,
    }
}
