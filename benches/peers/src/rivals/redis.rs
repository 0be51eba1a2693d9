//! Redis Streams: how its server is started.

use super::{Durability, Endpoint, Site, StartError, Started};
use crate::target::redis::Redis;

const HINT: &str = "apt-get install redis-server, or name it: --redis FILE";

/// Starts a server with its data at `site`.
pub fn start(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    let settings = match durability {
        // Rewriting the file, and snapshots beside it, only cost; without them a long run would fill the disk.
        Durability::Synced => {
            "--appendonly yes --appendfsync always --auto-aof-rewrite-percentage 0 --save ''"
        }
        Durability::Default => "",
    };
    let port = site.address.port().to_string();
    let mut serve = site.command(&site.place.redis);
    serve.args(["--bind", "127.0.0.1", "--port", &port, "--dir"]).arg(&site.dir);
    serve.args(settings.split_whitespace().map(|word| if word == "''" { "" } else { word }));
    let server = site.start(serve, HINT)?;
    let settings = match durability {
        Durability::Synced => settings,
        Durability::Default => {
            "no append-only file, snapshots as built in (save 3600 1 300 100 60 10000)"
        }
    };
    let settings = format!(
        "{settings}; a pipeline of XADD a batch, an entry a record, a connection a producer"
    );
    Ok((Endpoint::Redis(Redis { address: site.address.to_string() }), settings, vec![server]))
}
