//! Lists of CPUs in the kernel's notation: `0-3,8`.

use std::collections::BTreeSet;

/// More CPUs than Linux can have: a list that names more is not believed.
const MOST: usize = 1 << 16;

/// The CPUs a list names; parts that are no numbers name none.
pub(super) fn parse(list: &str) -> BTreeSet<usize> {
    let mut cpus = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse::<usize>()) {
            cpus.extend(first..=last.min(MOST));
        }
    }
    cpus
}

/// CPUs as people write them: `3`, `1 and 3`, `1, 2 and 3`.
pub(super) fn words(cpus: impl IntoIterator<Item = usize>) -> String {
    let mut words: Vec<String> = cpus.into_iter().map(|cpu| cpu.to_string()).collect();
    match words.pop() {
        Some(last) if !words.is_empty() => format!("{} and {last}", words.join(", ")),
        last => last.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse("0-2,8\n"), BTreeSet::from([0, 1, 2, 8]));
        assert_eq!(parse(""), BTreeSet::new());
        assert_eq!(parse("x,3,7-5,-"), BTreeSet::from([3]));
        assert_eq!(parse("0-99999999999999").len(), MOST + 1);
    }

    #[test]
    fn cpus_are_named_in_words() {
        assert_eq!(words([]), "");
        assert_eq!(words([3]), "3");
        assert_eq!(words([1, 2, 3]), "1, 2 and 3");
    }
}
