//! Seccomp profiles of the host, compiled for an app.

use std::path::Path;

use serde_json::{Map, json};
use stage1::appc::Isolator;
use stage1::confine::profile::compile_profile;
use stage1::error::{Context, Error, Result};
use stage1::pod::read_bounded;

/// A profile is no longer than this, in bytes.
const LONGEST: u64 = 1 << 20;

/// The isolator of an app that is filtered by the profile in `file`, or not at all if that is `unconfined`.
///
/// # Errors
/// The file can't be read, or is not a profile that an app can be started under.
pub fn isolator(file: &Path) -> Result<Isolator> {
    if file == Path::new("unconfined") {
        let value = json!({ "set": ["@appc.io/all"] });
        return Ok(Isolator { name: "os/linux/seccomp-retain-set".into(), value, other: Map::new() });
    }
    let text = read_bounded(file, LONGEST)?;
    let (filter, flags) =
        compile_profile(&text).map_err(|error| Error::new(format!("{file:?}: {}", error.one_line())))?;
    let filter = serde_json::to_value(filter).context(|| "the compiled profile")?;
    let value = json!({ "filter": filter, "flags": flags });
    Ok(Isolator { name: "os/linux/seccomp-program".into(), value, other: Map::new() })
}
