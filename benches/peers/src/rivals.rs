//! The systems: how each is started, with which settings, and how it is loaded.
//!
//! `Synced` is equal durability: an acknowledgement means that the record is on the device. `Default` is what a system
//! does when nobody changes its configuration. What is set besides is an address, a directory, and whatever its
//! documentation advises for this use, and is printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_loadgen::{Highwater, LoadError, LoadOptions, Report, Stop, Target, run_on};

use crate::server::{Server, ServerError, command, free_port, version};
use crate::target::nats::Nats;
use crate::target::rabbitmq::RabbitMq;
use crate::target::redis::Redis;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum System {
    /// NATS JetStream.
    Nats,
    /// Redis Streams.
    Redis,
    /// RabbitMQ Streams.
    Rabbitmq,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The record is on the device.
    Synced,
    /// What it means when nobody changes the configuration.
    Default,
}

/// Where executables and data are.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Where the data goes, all systems' on one file system: a directory on the device to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// CPUs of the server that is measured, as taskset has them; empty for all
    #[arg(long, value_name = "LIST", default_value = "0")]
    pub server_cpus: String,
    /// Highwater's executable
    #[arg(long, value_name = "FILE", default_value = "target/release/highwater")]
    pub highwater: PathBuf,
    /// NATS's server; from 2.10 on it can sync before it acknowledges
    #[arg(long, value_name = "FILE", default_value = "nats-server")]
    pub nats: PathBuf,
    /// Redis's server
    #[arg(long, value_name = "FILE", default_value = "redis-server")]
    pub redis: PathBuf,
    /// RabbitMQ's start script, not a wrapper that changes the user
    #[arg(long, value_name = "FILE", default_value = "/usr/lib/rabbitmq/bin/rabbitmq-server")]
    pub rabbitmq: PathBuf,
}

/// Why a system is not among those measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It has no such setting.
    #[error("{0}")]
    Cannot(String),
    /// Its server is not there.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Its files could not be written.
    #[error("its configuration: {0}")]
    Io(#[from] std::io::Error),
}

/// How a system is reached.
pub enum Endpoint {
    /// A Highwater server.
    Highwater(Highwater),
    /// A NATS server.
    Nats(Nats),
    /// A Redis server.
    Redis(Redis),
    /// A RabbitMQ broker.
    RabbitMq(RabbitMq),
}

/// A system that runs.
pub struct Contender {
    /// What the table calls it.
    pub name: String,
    /// What is set, as it is set.
    pub settings: String,
    /// What an acknowledgement means.
    pub durability: Durability,
    endpoint: Endpoint,
    servers: Vec<Server>,
}

impl Contender {
    /// Makes a run on it. It goes on for that time only, after everything written so far has settled.
    ///
    /// # Errors
    /// As [`run_on`].
    pub fn run(&self, mut options: LoadOptions, stop: &Stop) -> Result<Report, LoadError> {
        rustix::fs::sync();
        self.servers.iter().for_each(Server::resume);
        options.target = self.endpoint.address().to_owned();
        let report = self.endpoint.run(options, stop);
        self.servers.iter().for_each(Server::pause);
        report
    }
}

impl Endpoint {
    fn address(&self) -> &str {
        match self {
            Endpoint::Highwater(target) => target.address(),
            Endpoint::Nats(target) => target.address(),
            Endpoint::Redis(target) => target.address(),
            Endpoint::RabbitMq(target) => target.address(),
        }
    }

    fn run(&self, options: LoadOptions, stop: &Stop) -> Result<Report, LoadError> {
        match self {
            Endpoint::Highwater(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::Nats(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::Redis(target) => run_on(target.clone(), options, &mut (), stop),
            Endpoint::RabbitMq(target) => run_on(target.clone(), options, &mut (), stop),
        }
    }
}

/// Where one server has its files and listens.
struct Site<'a> {
    place: &'a Place,
    dir: PathBuf,
    name: String,
    address: SocketAddr,
}

impl Site<'_> {
    fn start(&self, command: Command, hint: &'static str) -> Result<Server, ServerError> {
        Server::start(&self.name, command, &self.dir.join("log"), self.address, hint)
    }

    fn command(&self, program: &Path) -> Command {
        command(program, &self.place.server_cpus, &self.dir)
    }
}

impl System {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            System::Nats => "NATS JetStream",
            System::Redis => "Redis Streams",
            System::Rabbitmq => "RabbitMQ Streams",
        }
    }

    /// Starts it with its data in `data`, and holds it still.
    ///
    /// # Errors
    /// It cannot be as durable as asked, or does not start.
    pub fn start(
        self,
        place: &Place,
        data: &Path,
        durability: Durability,
    ) -> Result<Contender, StartError> {
        let how = match durability {
            Durability::Synced => "synced",
            Durability::Default => "default",
        };
        let name = format!("{}, {how}", self.name());
        let site = site(place, data, &name)?;
        let (endpoint, settings, servers) = match self {
            System::Nats => nats(&site, durability)?,
            System::Redis => redis(&site, durability)?,
            System::Rabbitmq => rabbitmq(&site, durability)?,
        };
        servers.iter().for_each(Server::pause);
        Ok(Contender { name, settings, durability, endpoint, servers })
    }
}

fn site<'a>(place: &'a Place, data: &Path, name: &str) -> Result<Site<'a>, StartError> {
    let dir = data.join(name.replace([' ', ','], "-"));
    std::fs::create_dir_all(&dir)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    Ok(Site { place, dir, name: name.to_owned(), address })
}

/// Starts Highwater, which is as durable as it is by default, and holds it still.
///
/// # Errors
/// It does not start.
pub fn highwater(place: &Place, data: &Path) -> Result<Contender, StartError> {
    let site = site(place, data, "Highwater")?;
    let program = std::path::absolute(&place.highwater)?;
    // One core's thread for each CPU the others have.
    let mut settings = format!("serve --listen {}", site.address);
    if !place.server_cpus.is_empty() {
        settings.push_str(&format!(" --cores {}", place.server_cpus));
    }
    let mut serve = site.command(&program);
    serve.args(settings.split(' ')).arg("--data").arg(site.dir.join("data"));
    serve.env_remove("HIGHWATER_CONFIG");
    let server =
        site.start(serve, "build it: cargo build --release, or name it: --highwater FILE")?;
    server.pause();
    let options = LoadOptions { target: site.address.to_string(), ..LoadOptions::default() };
    Ok(Contender {
        name: site.name,
        settings,
        durability: Durability::Synced,
        endpoint: Endpoint::Highwater(Highwater::of(&options)),
        servers: vec![server],
    })
}

/// What a start gives: how it is reached, its settings, and its processes.
type Started = (Endpoint, String, Vec<Server>);

fn nats(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    const HINT: &str = "apt-get install nats-server, or name it: --nats FILE";
    let program = &site.place.nats;
    if durability == Durability::Synced {
        let said = version(program, "--version").unwrap_or_default();
        if !syncs(&said) {
            let why = "JetStream syncs before it acknowledges (sync_interval: always) from 2.10 on";
            return Err(StartError::Cannot(format!("{why}, this is {said}; name another: --nats")));
        }
    }
    let sync = match durability {
        Durability::Synced => ", sync_interval: always",
        Durability::Default => "",
    };
    let store = site.dir.join("data");
    let jetstream = format!("jetstream {{ store_dir: {:?}{sync} }}", store.display().to_string());
    let config = site.dir.join("nats.conf");
    std::fs::write(&config, format!("listen: \"{}\"\n{jetstream}\n", site.address))?;
    let mut serve = site.command(program);
    serve.arg("--config").arg(&config);
    let server = site.start(serve, HINT)?;
    let settings = format!(
        "jetstream {{ store_dir: ..{sync} }}; stream: file storage, 1 replica; asynchronous publishes, a message a record, a connection a producer"
    );
    Ok((Endpoint::Nats(Nats { address: site.address.to_string() }), settings, vec![server]))
}

/// Whether a NATS server that calls itself `nats-server: v2.9.10` has `sync_interval: always`.
fn syncs(version: &str) -> bool {
    let numbers = version.rsplit_once('v').map_or("", |(_, numbers)| numbers);
    let mut numbers = numbers.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= (2, 10),
        _ => false,
    }
}

fn redis(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    const HINT: &str = "apt-get install redis-server, or name it: --redis FILE";
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

fn rabbitmq(site: &Site<'_>, durability: Durability) -> Result<Started, StartError> {
    const HINT: &str = "apt-get install rabbitmq-server, or name it: --rabbitmq FILE";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_syncs_from_two_ten_on() {
        for (version, can) in [
            ("nats-server: v2.9.10", false),
            ("nats-server: v2.10.0", true),
            ("nats-server: v2.14.0", true),
            ("nats-server: v3.0.1", true),
            ("nats-server: v1.99.0", false),
            ("", false),
        ] {
            assert_eq!(syncs(version), can, "{version}");
        }
    }
}
