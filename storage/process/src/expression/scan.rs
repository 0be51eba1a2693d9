//! Looks at the text of an expression without reading it: what stands outside of quoted texts, and how deep.

/// Each character of `source` that is in no quoted text: where it stands, what it is, and in how many brackets (an
/// opening one is in itself, a closing one is not).
pub(crate) fn outside_texts(source: &str) -> impl Iterator<Item = (usize, char, usize)> {
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    source.char_indices().filter_map(move |(at, c)| {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => {
                match c {
                    '"' | '\'' => {
                        quote = Some(c);
                        return None;
                    }
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                return Some((at, c, depth));
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_passed_over_and_brackets_counted() {
        let seen: String = outside_texts(r#"a('b\'(', "c)")[d]"#).map(|(_, c, _)| c).collect();
        assert_eq!(seen, "a(, )[d]");
        let deep: Vec<usize> = outside_texts("a(b[c])d").map(|(_, _, depth)| depth).collect();
        assert_eq!(deep, [0, 1, 1, 2, 2, 1, 0, 0]);
    }
}
