//! Which known name was meant.

/// The known name nearest to `name`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let meant = plain(name);
    let closeness = |known: &&str| strsim::jaro_winkler(&meant, &plain(known));
    let best = known.into_iter().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))?;
    (closeness(&best) > 0.8).then_some(best)
}

/// Without what is easily written one way or the other.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_not() {
        let known = ["rate", "duration", "partitionsPerTopic", "warmup"];
        for (name, wanted) in [
            ("durations", Some("duration")),
            ("partitions_per_topic", Some("partitionsPerTopic")),
            ("warm-up", Some("warmup")),
            ("rates", Some("rate")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), wanted, "{name}");
        }
    }
}
