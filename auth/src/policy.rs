//! What names, e-mail addresses and passwords may be. Each check lists everything
//! that is missing, so that nobody has to find out one rule at a time.

use std::sync::LazyLock;

use secrecy::{ExposeSecret, SecretString};

use crate::door::Fault;

/// Bytes of a user name.
const NAME: std::ops::RangeInclusive<usize> = 3..=32;
/// Characters of a password.
const PASSWORD: std::ops::RangeInclusive<usize> = 10..=128;
/// From this length on, a password needs no mixture.
const LONG: usize = 16;
/// RFC 5321, 4.5.3.1: the longest local part and the longest path.
const EMAIL_LOCAL: usize = 64;
const EMAIL: usize = 254;

/// The commonest passwords, in small letters: as they are, and as words to which only
/// digits and signs were added.
static COMMON: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    include_str!("common_passwords.txt")
        .split_whitespace()
        .collect()
});

/// The name as it is kept: in small ASCII letters.
pub(crate) fn username(text: &str) -> Result<String, Fault> {
    let name = text.to_ascii_lowercase();
    let fits = NAME.contains(&name.len())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    fits.then_some(name).ok_or_else(|| {
        fault(
            "username",
            "the user name must be 3 to 32 characters out of a-z, 0-9, `.`, `_` and `-`",
        )
    })
}

/// The address as it is kept: trimmed.
pub(crate) fn email(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    is_email(text).then(|| text.to_owned()).ok_or_else(|| {
        fault(
            "email",
            "the e-mail address must look like name@example.org, in ASCII",
        )
    })
}

/// The dot-atom form of RFC 5322 before the `@`, a host name with a dot behind it.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= EMAIL
        && local.len() <= EMAIL_LOCAL
        && local
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(atom))
        && domain.contains('.')
        && domain.split('.').all(label)
}

/// Everything that the password lacks.
pub(crate) fn password(password: &SecretString, username: &str, email: &str) -> Vec<Fault> {
    let text = password.expose_secret();
    let length = text.chars().count();
    let mut faults = Vec::new();
    let mut missing = |detail: &str| faults.push(fault("password", detail));

    if length < *PASSWORD.start() {
        missing("the password must have at least 10 characters");
    }
    if length > *PASSWORD.end() {
        missing("the password must have at most 128 characters");
    }
    if length < LONG && classes(text) < 3 {
        missing(
            "the password must mix three of small letters, capital letters, digits and other characters, or have 16 characters or more",
        );
    }
    let lower = text.to_lowercase();
    if holds(&lower, username) {
        missing("the password must not contain the user name");
    }
    if holds(&lower, email.split('@').next().unwrap_or_default()) {
        missing("the password must not contain the name part of the e-mail address");
    }
    if is_common(&lower) {
        missing("the password is one of the commonest");
    }
    faults
}

fn classes(text: &str) -> usize {
    let kinds: [fn(char) -> bool; 4] = [
        char::is_lowercase,
        char::is_uppercase,
        char::is_numeric,
        |c| !c.is_lowercase() && !c.is_uppercase() && !c.is_numeric(),
    ];
    kinds.iter().filter(|kind| text.chars().any(kind)).count()
}

fn holds(password: &str, name: &str) -> bool {
    name.len() >= *NAME.start() && password.contains(&name.to_lowercase())
}

fn is_common(lower: &str) -> bool {
    let word = lower.trim_matches(|c: char| !c.is_alphabetic());
    let distinct = lower
        .chars()
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    distinct < 4
        || COMMON
            .iter()
            .any(|&common| common == lower || common == word)
}

fn fault(field: &str, detail: &str) -> Fault {
    Fault {
        field: field.to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        password(&text.into(), "margaret", "peggy.h@example.org")
            .into_iter()
            .map(|fault| fault.detail)
            .collect()
    }

    #[test]
    fn names_are_small_ascii_letters_whatever_tricks_are_tried() {
        assert_eq!(username("Ada.L-1_").unwrap(), "ada.l-1_");
        for bad in [
            "ab",
            "",
            " ada",
            "ada ",
            "ada\0x",
            "ada/../x",
            "аda",         // a Cyrillic a
            "ada\u{200b}", // a zero-width space
            "ａｄａ",      // full width
            "ADA\u{130}",  // a dotted capital I, whose small form holds an ASCII i
            "\u{202e}ada",
            &"a".repeat(33),
        ] {
            assert_eq!(username(bad).unwrap_err().field, "username", "{bad:?}");
        }
    }

    #[test]
    fn addresses_that_mail_could_reach_are_taken() {
        for good in [
            "a@b.co",
            "first.last+tag@sub.example.org",
            "o'neil@example.org",
            " a@b.co ",
        ] {
            assert!(email(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "@",
            "a@",
            "@b.co",
            "a@b",
            "a b@c.de",
            "a@b..c",
            ".a@b.co",
            "a.@b.co",
            "a..b@c.de",
            "a@-b.co",
            "a@b-.co",
            "a@b@c.de",
            "a@b.co\r\nBcc: x",
            "ä@example.org",
            "a@exämple.org",
            "\"a b\"@c.de",
        ] {
            assert!(email(bad).is_err(), "{bad}");
        }
        assert!(email(&format!("{}@b.co", "a".repeat(65))).is_err());
        assert!(email(&format!("a@{}.co", "b.".repeat(130))).is_err());
    }

    #[test]
    fn a_good_password_lacks_nothing() {
        for good in [
            "Tr4verse-the",
            "correct horse battery staple",
            "пароль-Длинный1",
            "aaaabbbbccccdddd",
        ] {
            assert_eq!(faults(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        assert_eq!(faults("margaret").len(), 3, "length, mixture, user name");
        assert_eq!(faults("Peggy.H-12345").len(), 1, "the e-mail's name part");
        assert_eq!(
            faults(&"aB3".repeat(50)).len(),
            2,
            "too long, too few different characters"
        );
    }

    #[test]
    fn decorated_common_passwords_are_still_common() {
        for bad in [
            "Password123!",
            "1234567890",
            "Qwertyuiop1!",
            "!!LetMeIn2024",
            "aaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(faults(bad).iter().any(|f| f.contains("commonest")), "{bad}");
        }
    }
}
