//! The place in a query that an error is about, shown with a mark under it.

/// Characters of a line that an excerpt shows.
const WIDTH: usize = 100;

/// A place in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// The line, and under it a caret.
    pub excerpt: String,
}

impl Place {
    /// The place, if the query has one there; a column one past the line's end counts.
    pub(crate) fn new(sql: &str, line: u64, column: u64) -> Option<Self> {
        let text = sql
            .lines()
            .nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
        let at = usize::try_from(column.checked_sub(1)?).ok()?;
        let length = text.chars().count();
        if at > length {
            return None;
        }
        // A long line is cut to a window around the place.
        let from = at.saturating_sub(WIDTH * 2 / 3);
        let window: String = text
            .chars()
            .skip(from)
            .take(WIDTH)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Some(Self {
            line,
            column,
            excerpt: format!("{window}\n{}^", " ".repeat(at - from)),
        })
    }

    /// Takes the place out of the parser's words, `... at Line: 1, Column: 8`. Where they
    /// name none, the parser met the end.
    pub(crate) fn in_words(words: &str, sql: &str) -> (String, Option<Self>) {
        if let Some((detail, rest)) = words.rsplit_once(" at Line: ")
            && let Some((line, column)) = rest.split_once(", Column: ")
            && let (Ok(line), Ok(column)) = (line.trim().parse(), column.trim().parse())
        {
            return (detail.trim().to_owned(), Self::new(sql, line, column));
        }
        let place = words.contains("found: EOF").then(|| {
            let line = sql.lines().count().max(1);
            let column = sql.lines().last().unwrap_or_default().chars().count() + 1;
            Self::new(sql, line as u64, column as u64)
        });
        (words.trim().to_owned(), place.flatten())
    }

    /// The first place where the query says that name, as a word.
    pub(crate) fn of_name(sql: &str, name: &str) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let word = |c: char| c.is_alphanumeric() || c == '_';
        sql.lines().enumerate().find_map(|(index, line)| {
            let lower = line.to_ascii_lowercase();
            let wanted = name.to_ascii_lowercase();
            let at = lower.match_indices(&wanted).map(|(at, _)| at).find(|&at| {
                let before = lower[..at].chars().next_back();
                let after = lower[at + wanted.len()..].chars().next();
                !before.is_some_and(word) && !after.is_some_and(word)
            })?;
            let column = line[..at].chars().count() + 1;
            Self::new(sql, index as u64 + 1, column as u64)
        })
    }
}

/// The candidate that `name` most likely means, if one is near enough.
pub(crate) fn closest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    candidates
        .iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to add, drop, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stands_under_the_column_even_in_a_long_line() {
        let place = Place::new("SELECT a,\n  b FROM x", 2, 3).unwrap();
        assert_eq!(place.excerpt, "  b FROM x\n  ^");

        let long = format!("{}X{}", "é".repeat(500), "y".repeat(500));
        let place = Place::new(&long, 1, 501).unwrap();
        let (line, mark) = place.excerpt.split_once('\n').unwrap();
        assert_eq!(line.chars().nth(mark.chars().count() - 1), Some('X'));
        assert!(line.chars().count() <= WIDTH);
    }

    #[test]
    fn no_place_is_made_up() {
        assert_eq!(Place::new("SELECT 1", 2, 1), None);
        assert_eq!(Place::new("SELECT 1", 1, 10), None);
        assert_eq!(Place::new("SELECT 1", 0, 0), None);
        assert_eq!(Place::of_name("SELECT texts", "text"), None);
        assert_eq!(Place::of_name("", ""), None);
    }

    #[test]
    fn names_are_found_as_words_behind_letters_of_any_width() {
        let place = Place::of_name("SELECT 'ééé', TEXT, mytext", "text").unwrap();
        assert_eq!((place.line, place.column), (1, 15));
    }

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(closest("chanel", &["tenant", "channel"]), Some("channel"));
        assert_eq!(
            closest("Reciever_at", &["received_at", "sent_at"]),
            Some("received_at")
        );
        assert_eq!(closest("user", &["sender", "channel"]), None);
    }
}
