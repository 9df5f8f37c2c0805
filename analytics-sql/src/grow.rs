//! Functions whose result can be far larger, or far slower to find, than what goes in,
//! kept within a bound.
//!
//! A function makes its whole result before anything can look at it, in memory that no
//! pool counts, and on constants it does so while the query is still planned. So a bound
//! of the result is computed first, from the lengths of what goes in: rows are taken in
//! parts that stay below [`ROWS`], and where one row alone could pass it, or constants
//! [`CONSTANT`], the function is not called.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

/// Bytes that one call may make of a batch of rows.
const ROWS: usize = 64 << 20;
/// Bytes that one call may make of constants: as much as a query's text may have.
const CONSTANT: usize = 64 << 10;
/// Pairs of bytes that one call may compare.
const PAIRS: usize = 1 << 30;
/// Length of any number, time or truth value as text, at most.
const SCALAR: usize = 400;

/// A function asked for too much; told to who wrote the query.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{function}` could make more than {most} here, which is the most for one call; shorten what goes in"
)]
pub(crate) struct TooMuch {
    function: String,
    most: String,
}

/// How large a function's result can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    /// All that goes in, one after the other.
    Sum,
    /// The first of its arguments between all others.
    Between,
    /// The third of its arguments for each second one in the first.
    Replace,
    /// The third of its arguments, with groups in it, for each match in the first.
    RegexReplace,
    /// All groups of the second in the first.
    Groups,
    /// The elements of the first with the others between them.
    Join,
    /// An element for each character.
    Split,
    /// Two characters for each byte.
    Encode,
    /// The second of its arguments, each two bytes of it a time or a name.
    Format,
    /// A comparison of each byte with each.
    Pairs,
}

impl Growth {
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "concat" => Self::Sum,
            "concat_ws" => Self::Between,
            "replace" => Self::Replace,
            "regexp_replace" => Self::RegexReplace,
            "regexp_match" => Self::Groups,
            "array_to_string" => Self::Join,
            "string_to_array" => Self::Split,
            "encode" => Self::Encode,
            "to_char" => Self::Format,
            "levenshtein" => Self::Pairs,
            _ => return None,
        })
    }

    /// A bound of the result of one row, in bytes or, for [`Growth::Pairs`], pairs.
    fn most(self, args: &[Value], row: usize) -> usize {
        let size = |n: usize| args.get(n).map_or(Size::default(), |arg| arg.size(row));
        let (first, second, third) = (size(0).bytes, size(1).bytes, size(2).bytes);
        let all = || {
            let sizes = args.iter().map(|arg| arg.size(row));
            sizes.fold(Size::default(), Size::plus)
        };
        let most = match self {
            Self::Sum => all().bytes,
            Self::Between => {
                let all = all();
                all.bytes.saturating_add(all.parts.saturating_mul(first))
            }
            Self::Replace => {
                let matches = first.checked_div(second).unwrap_or(0);
                first.saturating_add(matches.saturating_mul(third))
            }
            // At most a match before each byte and after the last. Matches do not overlap,
            // so one group in all of them is no longer than the text.
            Self::RegexReplace => first
                .saturating_mul(2)
                .saturating_add(1)
                .saturating_mul(third)
                .saturating_add(first),
            // A group is written with two bytes or more.
            Self::Groups => first.saturating_mul(second / 2 + 1),
            Self::Join => {
                let list = size(0);
                let between = second.saturating_add(third);
                list.bytes
                    .saturating_add(list.parts.saturating_mul(between))
            }
            Self::Split => first.saturating_mul(6).saturating_add(8),
            Self::Encode => first.saturating_mul(2).saturating_add(8),
            Self::Format => second.saturating_mul(32).saturating_add(SCALAR),
            Self::Pairs => return first.saturating_mul(second),
        };
        // Some repeat their constants for every row first.
        most.saturating_add(first)
            .saturating_add(second)
            .saturating_add(third)
    }
}

/// What is in one row of an array.
#[derive(Clone, Copy, Default)]
struct Size {
    /// Length as text, at most.
    bytes: usize,
    /// Elements, if it is a list, else one.
    parts: usize,
}

impl Size {
    fn of(array: &ArrayRef, row: usize) -> Self {
        let bytes = match array.data_type() {
            DataType::Null => 0,
            DataType::Utf8 => length(array.as_string::<i32>().value_length(row)),
            DataType::LargeUtf8 => length(array.as_string::<i64>().value_length(row)),
            DataType::Utf8View => array.as_string_view().value(row).len(),
            DataType::Binary => length(array.as_binary::<i32>().value_length(row)),
            DataType::LargeBinary => length(array.as_binary::<i64>().value_length(row)),
            DataType::BinaryView => array.as_binary_view().value(row).len(),
            DataType::List(_) => return Self::sum(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => return Self::sum(&array.as_list::<i64>().value(row)),
            simple if simple.is_primitive() || *simple == DataType::Boolean => SCALAR,
            // As if all of the array were in each row.
            _ => {
                let all = array.get_array_memory_size();
                return Self {
                    bytes: all.saturating_mul(8).saturating_add(SCALAR),
                    parts: all.saturating_add(1),
                };
            }
        };
        Self { bytes, parts: 1 }
    }

    fn sum(elements: &ArrayRef) -> Self {
        (0..elements.len())
            .map(|row| Self::of(elements, row))
            .fold(Self::default(), Self::plus)
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            parts: self.parts.saturating_add(other.parts),
        }
    }
}

/// Arrow's lengths are signed and not negative.
fn length(of: impl TryInto<usize>) -> usize {
    of.try_into().unwrap_or(usize::MAX)
}

/// Whether a function of that name is bounded here.
pub(crate) fn grows(function: &str) -> bool {
    Growth::of(function).is_some()
}

/// The function within its bound, if it needs one.
pub(crate) fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match Growth::of(function.name()) {
        Some(growth) => Arc::new(ScalarUDF::new_from_impl(Bounded {
            inner: Arc::clone(function.inner()),
            growth,
        })),
        None => function,
    }
}

/// A function within its bound. It is never simplified to another: that would be the one
/// without a bound.
#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn ScalarUDFImpl>,
    growth: Growth,
}

impl Bounded {
    fn refusal(&self, bytes: usize) -> DataFusionError {
        let most = match self.growth {
            Growth::Pairs => format!("{PAIRS} comparisons"),
            _ => format!("{} KiB", bytes >> 10),
        };
        DataFusionError::External(Box::new(TooMuch {
            function: self.inner.name().to_owned(),
            most,
        }))
    }

    const fn limit(&self, bytes: usize) -> usize {
        match self.growth {
            Growth::Pairs => PAIRS,
            _ => bytes,
        }
    }

    /// Where the parts of the rows end that may be taken at once.
    fn ends(&self, args: &[Value], rows: usize) -> Result<Vec<usize>> {
        let limit = self.limit(ROWS);
        let mut ends = Vec::new();
        let mut sum: usize = 0;
        for row in 0..rows {
            let most = self.growth.most(args, row);
            if most > limit {
                return Err(self.refusal(ROWS));
            }
            sum = sum.saturating_add(most);
            if sum > limit {
                // Time adds up, whatever the parts.
                if self.growth == Growth::Pairs {
                    return Err(self.refusal(ROWS));
                }
                ends.push(row);
                sum = most;
            }
        }
        ends.push(rows);
        Ok(ends)
    }

    fn in_parts(&self, args: &ScalarFunctionArgs, ends: &[usize]) -> Result<ColumnarValue> {
        let mut results: Vec<ArrayRef> = Vec::with_capacity(ends.len());
        let (mut start, mut bytes) = (0, 0);
        for &end in ends {
            let rows = end - start;
            let mut part = args.clone();
            part.number_rows = rows;
            for arg in &mut part.args {
                if let ColumnarValue::Array(array) = arg {
                    *array = array.slice(start, rows);
                }
            }
            let result = self.inner.invoke_with_args(part)?.into_array(rows)?;
            bytes += result.to_data().get_slice_memory_size()?;
            if bytes > ROWS {
                return Err(self.refusal(ROWS));
            }
            results.push(result);
            start = end;
        }
        let results: Vec<&dyn Array> = results.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(arrow::compute::concat(&results)?))
    }
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner.name() == other.inner.name()
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.name().hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values: Vec<Value> = args.args.iter().map(Value::new).collect::<Result<_>>()?;
        if values.iter().all(|value| value.constant) {
            if self.growth.most(&values, 0) > self.limit(CONSTANT) {
                return Err(self.refusal(CONSTANT));
            }
            return self.inner.invoke_with_args(args);
        }
        let ends = self.ends(&values, args.number_rows)?;
        if ends.len() == 1 {
            return self.inner.invoke_with_args(args);
        }
        self.in_parts(&args, &ends)
    }
}

/// An argument; a constant is an array of one.
struct Value {
    array: ArrayRef,
    constant: bool,
}

impl Value {
    fn new(arg: &ColumnarValue) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Array(array) => Self {
                array: Arc::clone(array),
                constant: false,
            },
            ColumnarValue::Scalar(scalar) => Self {
                array: scalar.to_array()?,
                constant: true,
            },
        })
    }

    fn size(&self, row: usize) -> Size {
        Size::of(&self.array, if self.constant { 0 } else { row })
    }
}
