//! Apache Iggy: how its server is started, as the documentation of its release 0.8 has it.

use super::{Durability, Endpoint, Site, StartError, Started, System};
use crate::target::iggy::{Iggy, USER};

const HINT: &str = "build the server of Apache Iggy, and name it: --iggy FILE";

/// Equal durability: whatever comes is written at once, and synced.
const SYNCED: [(&str, &str); 2] = [
    ("IGGY_SYSTEM_PARTITION_ENFORCE_FSYNC", "true"),
    ("IGGY_SYSTEM_PARTITION_MESSAGES_REQUIRED_TO_SAVE", "1"),
];

/// Starts a server with its data at `site`.
pub fn start(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    let Some(program) = &site.place.iggy else {
        return Err(StartError::Cannot(System::Iggy.left_out().to_owned()));
    };
    let mut set: Vec<(&str, String)> = match durability {
        Durability::Synced => SYNCED.map(|(name, value)| (name, value.to_owned())).into(),
        Durability::Default => Vec::new(),
    };
    // It pins a thread to each CPU of the machine otherwise, whatever it was started on.
    if let Some(cpus) = range(&site.place.server_cpus) {
        set.push(("IGGY_SYSTEM_SHARDING_CPU_ALLOCATION", cpus));
    }
    let mut serve = site.command(program);
    serve
        .env("IGGY_SYSTEM_PATH", site.dir.join("data"))
        .env("IGGY_TCP_ADDRESS", site.address.to_string())
        .envs(["HTTP", "QUIC", "WEBSOCKET"].map(|kind| (format!("IGGY_{kind}_ENABLED"), "false")))
        .env("IGGY_ROOT_USERNAME", USER)
        .env("IGGY_ROOT_PASSWORD", USER)
        .envs(set.iter().map(|(name, value)| (name, value)));
    let server = site.start(serve, HINT)?;
    let set: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let settings = format!(
        "{}; TCP, a request a batch, a connection a producer; a driver that had met no server before",
        set.join(" ")
    );
    let endpoint = Endpoint::Iggy(Iggy { address: site.address.to_string() });
    Ok((endpoint, settings.trim_start_matches("; ").to_owned(), vec![server]))
}

/// CPUs as Iggy has them, `2..5`, of those that taskset has as `2-4` or `2`; none of others.
fn range(cpus: &str) -> Option<String> {
    let (first, last) = cpus.split_once('-').unwrap_or((cpus, cpus));
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    Some(format!("{first}..{}", last.checked_add(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_range() {
        for (cpus, expected) in
            [("0", Some("0..1")), ("2-4", Some("2..5")), ("0,2", None), ("", None)]
        {
            assert_eq!(range(cpus).as_deref(), expected, "{cpus}");
        }
    }
}
