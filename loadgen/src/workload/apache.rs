//! Lines of an Apache access log in the combined format: those of a file, in its order, or generated ones
//! that resemble a real site's.
//!
//! Generated: clients and paths by Zipf's law (exponent 0.9), each client with one user agent, each
//! path with its size (lognormal, median 12 kB), nine in ten answers 200. The lines are made once and taken
//! in turn; the time in them is set to the record's.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use highwater_wire::{BatchBuilder, BatchError, MAX_KEY_CHARS};

use super::alias::Alias;
use super::keys::KeyTable;
use super::text::{APACHE_LEN, Clock, push};
use super::{Draw, WorkloadError};
use crate::proof::Proof;
use crate::schedule::mix;

/// Lines, all in memory.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    /// Of each: where it ends, and its client's key.
    lines: Vec<(usize, u32)>,
    most: usize,
    /// Whether the time, right behind the client and ` - - [`, is to be set.
    stamped: bool,
}

/// What lies between client and time.
const BEFORE_TIME: &[u8] = b" - - [";

/// Most bytes of a log file: it is held in memory.
const MAX_FILE: u64 = 1 << 30;
/// Longest line.
const MAX_LINE: usize = 256 << 10;
/// Lines generated: more than the recorded hours they are modelled on.
const LINES: usize = 1 << 15;
const CLIENTS: usize = 6_000;
const PATHS: usize = 2_000;

impl Lines {
    /// One more.
    pub fn add(&mut self, line: &[u8], client: u32) {
        self.text.extend_from_slice(line);
        self.lines.push((self.text.len(), client));
        self.most = self.most.max(line.len());
    }

    /// The lines of a file without their ends, empty ones left out, and the clients they begin with.
    pub fn read(file: &Path) -> Result<(Lines, KeyTable), WorkloadError> {
        let unreadable = |source| WorkloadError::Read { file: file.to_owned(), source };
        let open = std::fs::File::open(file).map_err(unreadable)?;
        let bytes = open.metadata().map_err(unreadable)?.len();
        if bytes > MAX_FILE {
            return Err(WorkloadError::Field {
                field: "size of the log file",
                value: format!("{bytes} bytes"),
                limit: "at most 1 GiB".to_owned(),
            });
        }
        Lines::parse(BufReader::new(open), file)
    }

    fn parse(text: impl BufRead, file: &Path) -> Result<(Lines, KeyTable), WorkloadError> {
        let unreadable = |source| WorkloadError::Read { file: file.to_owned(), source };
        let wrong = |line, limit| Err(WorkloadError::Line { file: file.to_owned(), line, limit });
        let (mut lines, mut keys) = (Lines::default(), KeyTable::default());
        let mut known: HashMap<String, u32> = HashMap::new();
        // A little more than allowed, should the file grow under us.
        let mut text = text.take(MAX_FILE + 1);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut limited = std::io::Read::take(&mut text, MAX_LINE as u64 + 2);
            if limited.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
                break;
            }
            let line = line.trim_ascii_end();
            if line.is_empty() {
                continue;
            }
            if line.len() > MAX_LINE {
                return wrong(number, "at most 256 KiB long");
            }
            // What the first line is decides; a real log has a broken one here and there.
            if lines.lines.is_empty() && !(line.contains(&b'[') && line.contains(&b'"')) {
                return wrong(
                    number,
                    "of an access log: CLIENT - - [TIME] \"REQUEST\" STATUS BYTES",
                );
            }
            let client = line.split(|byte| *byte == b' ').next().unwrap_or(line);
            let client = match std::str::from_utf8(client) {
                Ok(client) if client.chars().count() <= MAX_KEY_CHARS => client,
                _ => return wrong(number, "begun by a client of at most 256 characters, in UTF-8"),
            };
            let key = *known.entry(client.to_owned()).or_insert_with(|| {
                keys.push(client.as_bytes());
                keys.count() - 1
            });
            lines.add(line, key);
        }
        if lines.lines.is_empty() {
            return wrong(1, "there: the file is empty");
        }
        Ok((lines, keys))
    }

    /// As a real site's.
    pub fn generate(seed: u64) -> (Lines, KeyTable) {
        let mut random = fastrand::Rng::with_seed(seed);
        let site = Site::new(&mut random);
        let mut lines = Lines { stamped: true, ..Lines::default() };
        let mut keys = KeyTable::default();
        let mut known: HashMap<u32, u32> = HashMap::new();
        for _ in 0..LINES {
            let client = site.clients.draw(&mut random);
            // Numbered as they first come, as in a file.
            let key = *known.entry(client).or_insert_with(|| {
                keys.push(address(client, seed).as_bytes());
                keys.count() - 1
            });
            let line = site.line(&address(client, seed), client, &mut random);
            lines.add(line.as_bytes(), key);
        }
        (lines, keys)
    }

    pub fn most(&self) -> usize {
        self.most
    }

    pub fn mean(&self) -> f64 {
        self.text.len() as f64 / self.lines.len().max(1) as f64
    }

    fn line(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.lines[before].0);
        &self.text[start..self.lines[index].0]
    }

    /// The run's k-th record is line k, whoever produces it.
    pub fn source(&self, producer: u32, producers: u32) -> LinesSource {
        let count = self.lines.len() as u64;
        LinesSource {
            next: u64::from(producer) % count,
            step: u64::from(producers.max(1)) % count,
            count,
        }
    }

    #[inline]
    pub fn draw(&self, source: &mut LinesSource) -> Draw {
        let index = source.next as usize;
        source.next += source.step;
        if source.next >= source.count {
            source.next -= source.count;
        }
        let len = self.line(index).len() as u32;
        Draw { key: self.lines[index].1, len, shape: index as u32 }
    }

    #[inline]
    pub fn push(
        &self,
        batch: &mut BatchBuilder,
        key: &[u8],
        draw: &Draw,
        proof: &Proof,
        clock: &mut Clock,
    ) -> Result<(), BatchError> {
        let line = self.line(draw.shape as usize);
        if !self.stamped {
            return push(batch, key, &[line], proof);
        }
        let at = key.len() + BEFORE_TIME.len();
        let time = clock.apache(proof.intended_ns);
        push(batch, key, &[&line[..at], time, &line[at + APACHE_LEN..]], proof)
    }
}

/// Which line a producer sends next.
#[derive(Debug)]
pub(super) struct LinesSource {
    next: u64,
    step: u64,
    count: u64,
}

/// What generated lines are drawn from.
struct Site {
    clients: Alias,
    paths: Alias,
    path: Vec<(String, u32)>,
    agents: Alias,
    agent_seed: u64,
    status: Alias,
    methods: Alias,
}

const STATUS: [(u32, f64); 7] =
    [(200, 9126.0), (304, 445.0), (404, 213.0), (301, 164.0), (206, 45.0), (500, 4.0), (403, 3.0)];
const METHODS: [(&str, f64); 4] = [("GET", 995.0), ("HEAD", 4.0), ("POST", 0.8), ("OPTIONS", 0.2)];

/// What every page brings along: asked for most.
const ASSETS: [&str; 10] = [
    "/favicon.ico",
    "/css/main.css",
    "/css/reset.css",
    "/images/logo.png",
    "/images/banner.png",
    "/feed.rss",
    "/",
    "/robots.txt",
    "/js/site.js",
    "/feed.atom",
];
const SECTIONS: [&str; 6] = ["articles", "blog", "projects", "presentations", "images", "files"];
const WORDS: [&str; 24] = [
    "latency", "storage", "queues", "kernel", "logging", "streams", "backlog", "packets", "timers",
    "caching", "deploys", "schemas", "replicas", "sockets", "tracing", "metrics", "batches",
    "disks", "threads", "indexes", "cluster", "recovery", "alerts", "capacity",
];
const ENDINGS: [&str; 6] = [".html", ".png", ".html", ".jpg", ".html", ".pdf"];
const AGENTS: [&str; 16] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:121.0) Gecko/20100101 Firefox/121.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0",
    "FeedFetcher/4.2 (feed reader)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (iPad; CPU OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Safari/604.1",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36",
    "-",
    "curl/8.4.0",
    "Wget/1.21.4",
    "python-requests/2.31.0",
];

fn weighted<T>(choices: &[(T, f64)]) -> Alias {
    let weights: Vec<f64> = choices.iter().map(|(_, weight)| *weight).collect();
    Alias::new(&weights).unwrap_or_else(|| Alias::evenly(choices.len() as u32))
}

impl Site {
    fn new(random: &mut fastrand::Rng) -> Site {
        let mut path: Vec<String> = ASSETS.map(str::to_owned).to_vec();
        while path.len() < PATHS {
            let section = SECTIONS[random.usize(..SECTIONS.len())];
            let [first, second] = [0; 2].map(|_| WORDS[random.usize(..WORDS.len())]);
            let ending = ENDINGS[random.usize(..ENDINGS.len())];
            let number = path.len();
            path.push(match random.u32(..8) {
                0 => format!("/{section}/{first}/"),
                1 => format!("/{section}/tags/{first}?flav=rss20"),
                2 => format!(
                    "/{section}/{first}-{second}-{number}{ending}?utm_source=feed&utm_medium=rss"
                ),
                _ => format!("/{section}/{first}-{second}/{second}-{number}{ending}"),
            });
        }
        let sizes = super::sizes::Sizes::log_normal(100, 12_000, 1.6, 64 << 20);
        let path = path.into_iter().map(|path| (path, sizes.draw(random))).collect();
        Site {
            clients: Alias::zipf(CLIENTS as u32, 0.9),
            paths: Alias::zipf(PATHS as u32, 0.9),
            path,
            agents: Alias::zipf(AGENTS.len() as u32, 0.9),
            agent_seed: random.u64(..),
            status: weighted(&STATUS),
            methods: weighted(&METHODS),
        }
    }

    fn line(&self, address: &str, client: u32, random: &mut fastrand::Rng) -> String {
        // A client keeps its agent.
        let mut fixed = fastrand::Rng::with_seed(mix(self.agent_seed, u64::from(client)));
        let agent = AGENTS[self.agents.draw(&mut fixed) as usize];
        let (path, bytes) = &self.path[self.paths.draw(random) as usize];
        let status = STATUS[self.status.draw(random) as usize].0;
        let method = METHODS[self.methods.draw(random) as usize].0;
        let bytes = match status {
            304 => "-".to_owned(),
            200 if method == "HEAD" => "-".to_owned(),
            200 => bytes.to_string(),
            206 => random.u32(1..=*bytes).to_string(),
            _ => random.u32(200..600).to_string(),
        };
        // Two in five come from nowhere, one in ten from a search, the others from a page of the site.
        let referer = match random.u32(..10) {
            0..4 => "-".to_owned(),
            4 => format!("https://www.google.com/search?q={}", WORDS[random.usize(..WORDS.len())]),
            _ => {
                let (page, _) = &self.path[self.paths.draw(random) as usize];
                format!("https://www.example.com{page}")
            }
        };
        format!(
            "{address} - - [01/Jan/1970:00:00:00 +0000] \"{method} {path} HTTP/1.1\" {status} {bytes} \
             \"{referer}\" \"{agent}\""
        )
    }
}

/// The address of a client: different for each, and none of the special networks.
fn address(client: u32, seed: u64) -> String {
    // An odd factor permutes the 24-bit numbers.
    let low = client.wrapping_mul(0x9e_3779) ^ seed as u32;
    let first = [23, 46, 62, 83, 93, 130, 151, 178, 199, 208][(client % 10) as usize];
    format!("{first}.{}.{}.{}", low >> 16 & 255, low >> 8 & 255, low & 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &Lines, index: usize) -> &str {
        std::str::from_utf8(lines.line(index)).unwrap()
    }

    fn parse(text: &[u8]) -> Result<(Lines, KeyTable), WorkloadError> {
        Lines::parse(text, Path::new("a.log"))
    }

    #[test]
    fn a_files_lines_come_in_its_order_whoever_sends_them() {
        let log =
            b"::1 - - [t] \"GET /a\" 200 1\n\n10.0.0.9 - - [t] \"GET /b\" 200 2\r\nbroken\n::1 x";
        let (lines, keys) = parse(log).unwrap();
        assert_eq!((lines.lines.len(), keys.count()), (4, 3));
        for producers in [1, 2, 3, 5] {
            let mut sources: Vec<_> = (0..producers).map(|p| lines.source(p, producers)).collect();
            for k in 0..40 {
                let draw = lines.draw(&mut sources[k % producers as usize]);
                assert_eq!(draw.shape as usize, k % 4);
                let line = text(&lines, k % 4);
                assert_eq!(draw.len as usize, line.len());
                assert!(line.as_bytes().starts_with(keys.key(draw.key)));
            }
        }
        assert_eq!((lines.most(), lines.mean()), (31, (26.0 + 31.0 + 6.0 + 5.0) / 4.0));
    }

    #[test]
    fn what_is_no_log_is_named() {
        let long = [b"a [\" ".to_vec(), vec![b'x'; MAX_LINE]].concat();
        let client = format!("[\"{} x", "c".repeat(300));
        for (log, wanted) in [
            (&b""[..], "line 1: must be there"),
            (b"\n\n", "line 1: must be there"),
            (b"time_s,rate\n1,2\n", "line 1: must be of an access log"),
            (&long, "line 1: must be at most 256 KiB"),
            (client.as_bytes(), "line 1: must be begun by a client"),
            (b"a [\"\n\xff\xfe x", "line 2: must be begun by a client"),
        ] {
            let said = parse(log).unwrap_err().to_string();
            assert!(said.contains("a.log") && said.contains(wanted), "{said}");
        }
        let said = Lines::read(Path::new("/nonexistent/a.log")).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/a.log"), "{said}");
    }

    /// Status and path of a line, if it is in the combined format.
    fn combined(line: &str) -> Option<(&str, &str, &str)> {
        let (client, rest) = line.split_once(" - - [")?;
        let (_time, rest) = rest.split_once("] \"")?;
        let (request, rest) = rest.split_once("\" ")?;
        let (status, rest) = rest.split_once(' ')?;
        let (bytes, rest) = rest.split_once(" \"")?;
        let (_referer, rest) = rest.split_once("\" \"")?;
        let whole = rest.ends_with('"') && (bytes == "-" || bytes.parse::<u32>().is_ok());
        let path = request.split(' ').nth(1)?;
        whole.then_some((client, status, path))
    }

    /// Shares of the busiest client, the busiest path and of status 200, and the mean length.
    fn shape(lines: &Lines) -> [f64; 4] {
        let (mut clients, mut paths, mut fine) = (HashMap::new(), HashMap::new(), 0);
        let count = lines.lines.len();
        for index in 0..count {
            let Some((client, status, path)) = combined(text(lines, index)) else { continue };
            *clients.entry(client).or_insert(0) += 1;
            *paths.entry(path).or_insert(0) += 1;
            fine += i32::from(status == "200");
        }
        let top = |counts: &HashMap<&str, i32>| f64::from(*counts.values().max().unwrap());
        [top(&clients), top(&paths), f64::from(fine)]
            .map(|n| n / count as f64)
            .iter()
            .copied()
            .chain([lines.mean()])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    #[test]
    fn generated_lines_are_in_the_format_and_resemble_a_real_site() {
        let (lines, keys) = Lines::generate(7);
        assert_eq!(lines.lines.len(), LINES);
        for index in 0..LINES {
            let line = text(&lines, index);
            let (client, ..) = combined(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(client.as_bytes(), keys.key(lines.lines[index].1));
        }
        let [client, path, fine, mean] = shape(&lines);
        assert!((0.03..0.12).contains(&client) && (0.05..0.15).contains(&path), "{client} {path}");
        assert!((0.90..0.93).contains(&fine) && (200.0..280.0).contains(&mean), "{fine} {mean}");
        assert!((2_000..=6_000).contains(&keys.count()), "{}", keys.count());
        let distinct: std::collections::HashSet<_> =
            (0..keys.count()).map(|i| keys.key(i)).collect();
        assert_eq!(distinct.len(), keys.count() as usize);
        // The same seed, the same lines.
        assert_eq!(Lines::generate(7).0.text, lines.text);
        assert_ne!(Lines::generate(8).0.text, lines.text);
    }

    #[test]
    fn a_real_log_is_taken_and_the_generated_one_resembles_it() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/apache_access.log");
        if !file.exists() {
            println!("no real log at hand; nothing compared");
            return;
        }
        let (real, keys) = Lines::read(&file).unwrap();
        assert_eq!((real.lines.len(), keys.count()), (10_000, 1_753));
        let (generated, _) = Lines::generate(1);
        for (real, generated) in shape(&real).iter().zip(shape(&generated)) {
            let ratio = generated / real;
            assert!((0.5..2.0).contains(&ratio), "{real} {generated}");
        }
    }
}
