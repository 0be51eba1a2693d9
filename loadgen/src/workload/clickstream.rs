//! Page views of a shop's users: sessions of pages that lead to each other, as JSON such as
//! `{"user":"user-000042","session":"9f86d081884c7d65","step":3,"ts":"2026-11-22T23:51:18.123Z",`
//! `"action":"view","page":"/product/104","referrer":"/category/garden","device":"mobile"}`.
//!
//! A session follows one of a few thousand scripts, made before the run; which users come is Zipf's law.

use std::sync::Arc;

use highwater_wire::{BatchBuilder, BatchError};

use super::Draw;
use super::alias::Alias;
use super::keys::KeyTable;
use super::owned::Owned;
use super::text::{Clock, ISO_LEN, decimal_len, push, put_decimal, put_hexadecimal};
use crate::proof::Proof;
use crate::schedule::mix;

const OPEN: &[u8] = b"{\"user\":\"";
const SESSION: &[u8] = b"\",\"session\":\"";
const STEP: &[u8] = b"\",\"step\":";
const TS: &[u8] = b",\"ts\":\"";
const AFTER_TS: &[u8] = b"\",";

/// Sessions that differ in their pages.
const SCRIPTS: usize = 4096;
/// Most pages of a session: its number must fit [`STEP_BITS`].
const MOST_STEPS: usize = 40;
/// Bits of a draw's shape that number the step; the others number the user's session.
const STEP_BITS: u32 = 6;
/// How steeply users differ.
const EXPONENT: f64 = 0.9;

/// What all producers share.
#[derive(Debug)]
pub(super) struct Clickstream {
    users: u32,
    seed: u64,
    popular: Alias,
    scripts: Scripts,
    /// Bytes of a page view without the step's digits and its tail.
    frame: u32,
}

/// What is constant of each step of each script: the end of its JSON.
#[derive(Debug, Default)]
struct Scripts {
    tails: Vec<u8>,
    /// Where each step's tail ends.
    steps: Vec<usize>,
    /// Number of each script's first step, and after the last script's last.
    first: Vec<usize>,
}

impl Scripts {
    fn generate(seed: u64) -> Scripts {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut scripts = Scripts { first: vec![0], ..Scripts::default() };
        let (products, devices) = (Alias::zipf(1_000, 1.0), ["mobile", "desktop", "tablet"]);
        for _ in 0..SCRIPTS {
            let device = devices[[0, 0, 0, 0, 0, 1, 1, 1, 1, 2][random.usize(..10)]];
            let entries =
                ["", "https://www.google.com/", "https://news.example.org/", "newsletter"];
            let mut referrer = entries[random.usize(..entries.len())].to_owned();
            let mut page = Page::enter(&mut random, &products);
            for _ in 0..MOST_STEPS {
                let (action, path) = page.text();
                let tail = format!(
                    "\"action\":\"{action}\",\"page\":\"{path}\",\"referrer\":\"{referrer}\",\
                     \"device\":\"{device}\"}}"
                );
                scripts.tails.extend_from_slice(tail.as_bytes());
                scripts.steps.push(scripts.tails.len());
                referrer = path;
                match page.leave(&mut random, &products) {
                    Some(next) => page = next,
                    None => break,
                }
            }
            scripts.first.push(scripts.steps.len());
        }
        scripts
    }

    fn count(&self) -> usize {
        self.first.len() - 1
    }

    /// Steps of a script.
    #[inline]
    fn len(&self, script: usize) -> u32 {
        (self.first[script + 1] - self.first[script]) as u32
    }

    #[inline]
    fn tail(&self, script: usize, step: u32) -> &[u8] {
        let step = self.first[script] + step as usize;
        let start = step.checked_sub(1).map_or(0, |before| self.steps[before]);
        &self.tails[start..self.steps[step]]
    }
}

/// Where a user is.
enum Page {
    Home,
    Search(u32),
    Category(u32),
    Product(u32),
    Cart,
    Checkout,
    Confirmation,
}

const CATEGORIES: [&str; 12] = [
    "garden", "kitchen", "books", "music", "tools", "toys", "sports", "camping", "bikes", "office",
    "lamps", "shoes",
];

impl Page {
    fn enter(random: &mut fastrand::Rng, products: &Alias) -> Page {
        match random.u32(..10) {
            0..4 => Page::Home,
            4..6 => Page::category(random),
            _ => Page::Product(products.draw(random)),
        }
    }

    fn category(random: &mut fastrand::Rng) -> Page {
        Page::Category(random.u32(..CATEGORIES.len() as u32))
    }

    /// What a user does next, in per cent; `None`: leaves.
    fn leave(&self, random: &mut fastrand::Rng, products: &Alias) -> Option<Page> {
        let product = |random: &mut fastrand::Rng| Page::Product(products.draw(random));
        Some(match (self, random.u32(..100)) {
            (Page::Home, 0..35) | (Page::Product(_), 45..60) => Page::category(random),
            (Page::Home, 35..60) | (Page::Search(_), 60..70) => Page::Search(random.u32(..500)),
            (Page::Home, 60..75) | (Page::Search(_), 0..60) => product(random),
            (Page::Category(_), 0..65) | (Page::Product(_), 0..30) => product(random),
            (Page::Category(_), 65..75) => Page::category(random),
            (Page::Product(_), 30..45) => Page::Cart,
            (Page::Cart, 0..45) => Page::Checkout,
            (Page::Cart, 45..70) => product(random),
            (Page::Checkout, 0..75) => Page::Confirmation,
            (Page::Confirmation, 0..15) => Page::Home,
            _ => return None,
        })
    }

    /// What is done there, and its path.
    fn text(&self) -> (&'static str, String) {
        match self {
            Page::Home => ("view", "/".to_owned()),
            Page::Search(query) => ("search", format!("/search?q={query}")),
            Page::Category(index) => ("view", format!("/category/{}", CATEGORIES[*index as usize])),
            Page::Product(number) => ("view", format!("/product/{number}")),
            Page::Cart => ("add_to_cart", "/cart".to_owned()),
            Page::Checkout => ("checkout", "/checkout".to_owned()),
            Page::Confirmation => ("purchase", "/confirmation".to_owned()),
        }
    }
}

impl Clickstream {
    pub fn new(users: u32, seed: u64) -> Clickstream {
        let frame = [OPEN, SESSION, STEP, TS, AFTER_TS].concat().len() + 16 + ISO_LEN;
        Clickstream {
            users,
            seed,
            popular: Alias::zipf(users, EXPONENT),
            scripts: Scripts::generate(mix(seed, 1)),
            frame: (frame + key(0, users).len()) as u32,
        }
    }

    pub fn keys(&self) -> KeyTable {
        let mut table = KeyTable::with_capacity(self.users as usize * key(0, self.users).len());
        (0..self.users).for_each(|user| table.push(key(user, self.users).as_bytes()));
        table
    }

    pub fn most(&self) -> usize {
        let tails = self.scripts.steps.windows(2).map(|pair| pair[1] - pair[0]);
        let first = self.scripts.steps.first().copied().unwrap_or(0);
        self.frame as usize + 2 + tails.fold(first, usize::max)
    }

    pub fn mean(&self) -> f64 {
        // Every script is as likely as every other, so every step is.
        let steps = self.scripts.steps.len();
        let digits = (0..self.scripts.count()).flat_map(|script| 1..=self.scripts.len(script));
        let digits: u32 = digits.map(decimal_len).sum();
        f64::from(self.frame) + (self.scripts.tails.len() as f64 + f64::from(digits)) / steps as f64
    }

    /// The script of a user's session, and the session's identifier.
    #[inline]
    fn session(&self, user: u32, session: u32) -> (usize, u64) {
        let id = mix(mix(self.seed, u64::from(user)), u64::from(session));
        ((((id >> 32) * self.scripts.count() as u64) >> 32) as usize, id)
    }

    pub fn source(self: &Arc<Self>, producer: u32, producers: u32) -> ClickSource {
        let own = Owned::new(self.users, producer, producers);
        let sessions = vec![0; own.count() as usize];
        ClickSource { clicks: Arc::clone(self), own, sessions }
    }

    pub fn push(
        &self,
        batch: &mut BatchBuilder,
        key: &[u8],
        draw: &Draw,
        proof: &Proof,
        text: &mut Vec<u8>,
        clock: &mut Clock,
    ) -> Result<(), BatchError> {
        let (session, step) = (draw.shape >> STEP_BITS, draw.shape & ((1 << STEP_BITS) - 1));
        let (script, id) = self.session(draw.key, session);
        text.clear();
        for part in [OPEN, key, SESSION] {
            text.extend_from_slice(part);
        }
        put_hexadecimal(text, id);
        text.extend_from_slice(STEP);
        put_decimal(text, step + 1);
        text.extend_from_slice(TS);
        text.extend_from_slice(clock.iso(proof.intended_ns));
        text.extend_from_slice(AFTER_TS);
        push(batch, key, &[text, self.scripts.tail(script, step)], proof)
    }
}

/// All users' names have the same length.
fn key(user: u32, users: u32) -> String {
    let digits = decimal_len(users.saturating_sub(1)).max(6) as usize;
    format!("user-{user:0digits$}")
}

/// One producer's users.
#[derive(Debug)]
pub(super) struct ClickSource {
    clicks: Arc<Clickstream>,
    own: Owned,
    /// Of each user: the session and step that come next, as a draw's shape has them.
    sessions: Vec<u32>,
}

impl ClickSource {
    #[inline]
    pub fn next(&mut self, random: &mut fastrand::Rng) -> Draw {
        let clicks = &*self.clicks;
        let index = self.own.nearest(clicks.popular.draw(random));
        let user = self.own.key(index);
        let place = &mut self.sessions[index as usize];
        let shape = *place;
        let (session, step) = (shape >> STEP_BITS, shape & ((1 << STEP_BITS) - 1));
        let (script, _) = clicks.session(user, session);
        *place = if step + 1 < clicks.scripts.len(script) {
            shape + 1
        } else {
            session.wrapping_add(1) << STEP_BITS
        };
        let tail = clicks.scripts.tail(script, step).len() as u32;
        Draw { key: user, len: clicks.frame + decimal_len(step + 1) + tail, shape }
    }
}
