//! RabbitMQ Streams: how its broker is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::{Durability, Endpoint, Site, StartError, Started};
use crate::server::{Server, command, free_port};
use crate::target::rabbitmq::RabbitMq;

const HINT: &str = "apt-get install rabbitmq-server, or name it: --rabbitmq FILE";

/// Starts a broker with its data at `site`.
pub fn start(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    if durability == Durability::Synced {
        let why = "streams leave syncing to the operating system and rely on replicas: there is no setting";
        return Err(StartError::Cannot(why.to_owned()));
    }
    // Erlang's port mapper, which would otherwise be started as a daemon and stay.
    let mapper = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut epmd = command(Path::new("epmd"), &site.place.server_cpus, &site.dir);
    epmd.args(["-address", "127.0.0.1", "-port", &mapper.port().to_string()]);
    let epmd = Server::start("epmd", epmd, &site.dir.join("epmd.log"), mapper, HINT)?;

    let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let config = site.dir.join("rabbitmq.conf");
    let listeners =
        format!("listeners.tcp.1 = {listener}\nstream.listeners.tcp.1 = {}\n", site.address);
    std::fs::write(&config, listeners)?;
    let plugins = site.dir.join("enabled_plugins");
    std::fs::write(&plugins, "[rabbitmq_stream].\n")?;
    let mut serve = site.command(&site.place.rabbitmq);
    serve
        .env("HOME", &site.dir)
        .env("ERL_EPMD_PORT", mapper.port().to_string())
        .env("RABBITMQ_NODENAME", format!("peers-{}@localhost", site.address.port()))
        .env("RABBITMQ_DIST_PORT", free_port()?.to_string())
        .env("RABBITMQ_MNESIA_BASE", site.dir.join("data"))
        .env("RABBITMQ_LOG_BASE", site.dir.join("logs"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", site.dir.join("generated"))
        .env("RABBITMQ_PID_FILE", site.dir.join("pid"))
        .env("RABBITMQ_CONF_ENV_FILE", site.dir.join("no-environment"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins)
        .env("RABBITMQ_CONFIG_FILE", &config);
    let server = site.start(serve, HINT)?;
    let settings = "plugin rabbitmq_stream; stream protocol, a publish frame a batch, a message a record, a connection a producer";
    let endpoint = Endpoint::RabbitMq(RabbitMq::new(site.address.port()));
    // The broker ends before the mapper.
    Ok((endpoint, settings.to_owned(), vec![server, epmd]))
}
