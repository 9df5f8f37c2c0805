//! Parameters of the query string, each refused by its name.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use weir_auth::door::{Code, Problem};

/// The pairs of a query string, taken one by one.
pub(super) struct Parameters(Vec<(String, String)>);

/// What axum has read.
pub(super) type Raw = Result<Query<Vec<(String, String)>>, QueryRejection>;

impl Parameters {
    pub(super) fn new(raw: Raw) -> Result<Self, Problem> {
        Ok(Self(raw?.0))
    }

    /// Takes the parameter of that name, read by `read`, which says what would be right.
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let Some(at) = self.0.iter().position(|(its, _)| its == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        if self.0.iter().any(|(its, _)| its == name) {
            let detail = format!("the parameter `{name}` is there twice");
            return Err(Problem::new(Code::InvalidField, detail).field(name));
        }
        match read(&value) {
            Ok(value) => Ok(Some(value)),
            Err(detail) => Err(Problem::new(Code::InvalidField, detail).field(name)),
        }
    }

    /// Takes a whole number within bounds.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        least: usize,
        most: usize,
    ) -> Result<Option<usize>, Problem> {
        self.take(name, |value| {
            let number = value
                .parse()
                .ok()
                .filter(|number| (least..=most).contains(number));
            number.ok_or_else(|| format!("`{name}` is a number from {least} to {most}"))
        })
    }

    /// Refuses what is left.
    pub(super) fn end(self) -> Result<(), Problem> {
        let Some((name, _)) = self.0.into_iter().next() else {
            return Ok(());
        };
        let name: String = name.chars().take(64).collect();
        let detail = format!("the parameter `{name}` is not known here");
        Err(Problem::new(Code::UnknownField, detail).field(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<Option<usize>, (Code, String)> {
        let pairs = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let mut parameters = Parameters(pairs);
        let limit = parameters.number("limit", 1, 200);
        let fault = |problem: Problem| (problem.code(), problem.field_name().unwrap().to_owned());
        let limit = limit.map_err(fault)?;
        parameters.end().map_err(fault)?;
        Ok(limit)
    }

    #[test]
    fn each_fault_names_its_parameter() {
        let limit = || "limit".to_owned();
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("limit", "200")]), Ok(Some(200)));
        for bad in ["0", "201", "-1", "", "ten", "1.5"] {
            assert_eq!(read(&[("limit", bad)]), Err((Code::InvalidField, limit())));
        }
        assert_eq!(
            read(&[("limit", "1"), ("limit", "2")]),
            Err((Code::InvalidField, limit()))
        );
        assert_eq!(
            read(&[("page", "1")]),
            Err((Code::UnknownField, "page".to_owned()))
        );
    }
}
