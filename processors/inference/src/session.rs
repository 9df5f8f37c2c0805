//! One session of ONNX Runtime: a batch of token ids in, probabilities out.

use std::path::Path;

use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights};
use ort::session::{Session as Graph, SessionInputValue};
use ort::value::TensorRef;
use parking_lot::Mutex;

use crate::Error;
use crate::folder::{ATTRIBUTES, SENTIMENTS};

/// ONNX Runtime allows one environment in a process, so this is one for the process.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// Loads ONNX Runtime, the first time.
pub(crate) fn environment(library: &Path) -> Result<Environment, Error> {
    let mut held = ENVIRONMENT.lock();
    if let Some(environment) = held.as_ref() {
        return Ok(environment.clone());
    }
    if !library.is_file() {
        return Err(Error::RuntimeMissing {
            path: library.to_owned(),
        });
    }
    let environment = ort::init_from(library)
        .map_err(|e| Error::RuntimeUnusable {
            reason: e.to_string(),
        })?
        .with_name("weir")
        .with_telemetry(false)
        .build()
        .map_err(|e| Error::RuntimeUnusable {
            reason: e.to_string(),
        })?;
    environment.set_log_level(LogLevel::Warning);
    *held = Some(environment.clone());
    Ok(environment)
}

/// What the model says of one row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) scores: [f32; 6],
    pub(crate) sentiment: [f32; 3],
    /// One for each id of the row.
    pub(crate) tokens: Vec<f32>,
}

/// A session and the buffers that its batches are laid out in.
pub(crate) struct Session {
    graph: Graph,
    types: bool,
    ids: Vec<i64>,
    mask: Vec<i64>,
    zeros: Vec<i64>,
}

impl Session {
    /// One session on a model; `weights` shares what several sessions have in common.
    pub(crate) fn open(
        environment: &Environment,
        model: &Path,
        weights: &PrepackedWeights,
    ) -> Result<Self, Error> {
        let graph = Self::graph(environment, model, weights).map_err(|e| Error::Model {
            reason: e.to_string(),
        })?;
        let inputs: Vec<&str> = graph.inputs().iter().map(|i| i.name()).collect();
        let known = ["input_ids", "attention_mask", "token_type_ids"];
        let needed = known[..2].iter().all(|name| inputs.contains(name));
        if !needed || inputs.iter().any(|name| !known.contains(name)) {
            return Err(Error::Model {
                reason: format!(
                    "its inputs are {}, not input_ids and attention_mask",
                    inputs.join(", ")
                ),
            });
        }
        for name in ["attributes", "sentiment", "token_toxicity"] {
            if !graph.outputs().iter().any(|o| o.name() == name) {
                return Err(Error::Model {
                    reason: format!("it has no output `{name}`"),
                });
            }
        }
        let types = inputs.contains(&"token_type_ids");
        Ok(Self {
            graph,
            types,
            ids: Vec::new(),
            mask: Vec::new(),
            zeros: Vec::new(),
        })
    }

    fn graph(
        environment: &Environment,
        model: &Path,
        weights: &PrepackedWeights,
    ) -> ort::Result<Graph> {
        // One thread: the pass runs on the thread that asks for it. Without the arena, every tensor of
        // every pass would be fresh pages of the system: a sixth slower, and no smaller.
        Graph::builder(environment)?
            .with_execution_providers([ep::CPU::default().with_arena_allocator(true).build()])?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_flush_to_zero()?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_memory_pattern(false)?
            .with_prepacked_weights(weights)?
            .with_log_level(LogLevel::Warning)?
            .commit_from_file(model)
    }

    /// One forward pass: one output for each row, in order. Rows are padded to the
    /// longest of them.
    pub(crate) fn run(&mut self, rows: &[&[u32]]) -> Result<Vec<Output>, ort::Error> {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let shape = [rows.len(), width];
        self.ids.clear();
        self.mask.clear();
        for row in rows {
            let padding = width - row.len();
            self.ids.extend(row.iter().map(|id| i64::from(*id)));
            self.ids.extend(std::iter::repeat_n(0, padding));
            self.mask.extend(std::iter::repeat_n(1, row.len()));
            self.mask.extend(std::iter::repeat_n(0, padding));
        }
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
            (
                "input_ids",
                TensorRef::from_array_view((shape, self.ids.as_slice()))?.into(),
            ),
            (
                "attention_mask",
                TensorRef::from_array_view((shape, self.mask.as_slice()))?.into(),
            ),
        ];
        if self.types {
            self.zeros.resize(self.ids.len().max(self.zeros.len()), 0);
            let zeros = &self.zeros[..self.ids.len()];
            inputs.push((
                "token_type_ids",
                TensorRef::from_array_view((shape, zeros))?.into(),
            ));
        }
        let outputs = self.graph.run(inputs)?;
        let column = |name: &str, per_row: usize| -> Result<Vec<f32>, ort::Error> {
            let values = outputs
                .get(name)
                .ok_or_else(|| ort::Error::new(format!("no output `{name}`")))?
                .try_extract_tensor::<f32>()?
                .1;
            if values.len() != rows.len() * per_row {
                return Err(ort::Error::new(format!(
                    "output `{name}` has an unexpected shape"
                )));
            }
            Ok(values.to_vec())
        };
        let attributes = column("attributes", ATTRIBUTES.len())?;
        let sentiment = column("sentiment", SENTIMENTS.len())?;
        let tokens = column("token_toxicity", width)?;
        let (attributes, _) = attributes.as_chunks::<6>();
        let (sentiment, _) = sentiment.as_chunks::<3>();
        Ok(rows
            .iter()
            .enumerate()
            .map(|(at, row)| Output {
                scores: attributes[at],
                sentiment: sentiment[at],
                tokens: tokens[at * width..at * width + row.len()].to_vec(),
            })
            .collect())
    }
}
