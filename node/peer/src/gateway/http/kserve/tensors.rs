//! Tensors of one element, in JSON or behind it.

use crate::gateway::http::error::{Fault, Problem};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeMap;

/// The inputs of one call, by name.
pub(super) struct Tensors<'a>(BTreeMap<String, Tensor<'a>>);

struct Tensor<'a> {
    datatype: String,
    content: Content<'a>,
}

enum Content<'a> {
    Json(Value),
    Binary(&'a [u8]),
}

impl<'a> Tensors<'a> {
    /// Reads the inputs; the binary ones follow each other in their order.
    ///
    /// # Errors
    /// For what is no list of tensors, and for binary ones that are not there.
    pub(super) fn read(inputs: Option<&Value>, mut binary: &'a [u8]) -> Result<Self, Problem> {
        let mut tensors = BTreeMap::new();
        for input in inputs.and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| input.get(name).and_then(Value::as_str).unwrap_or_default();
            let (name, datatype) = (text("name").to_owned(), text("datatype").to_owned());
            let size = input.pointer("/parameters/binary_data_size").and_then(Value::as_u64);
            let content = match size {
                None => Content::Json(first(input.get("data").unwrap_or(&Value::Null)).clone()),
                Some(size) => {
                    let at = usize::try_from(size).unwrap_or(usize::MAX);
                    let Some((own, rest)) = binary.split_at_checked(at) else {
                        let got = binary.len();
                        return Err(fault(&name, format!("{size} binary bytes, got {got}")));
                    };
                    binary = rest;
                    Content::Binary(own)
                }
            };
            tensors.insert(name, Tensor { datatype, content });
        }
        Ok(Tensors(tensors))
    }

    /// The text of a tensor of BYTES.
    ///
    /// # Errors
    /// For another type, and for what is no UTF-8.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let Some(tensor) = self.0.remove(name) else { return Ok(None) };
        let text = match &tensor.content {
            Content::Json(value) => value.as_str().map(str::to_owned),
            Content::Binary(bytes) => element(bytes).and_then(|e| String::from_utf8(e.into()).ok()),
        };
        match text.filter(|_| tensor.datatype == "BYTES") {
            Some(text) => Ok(Some(text)),
            None => Err(fault(name, format!("one text of BYTES, got {}", tensor.datatype))),
        }
    }

    /// The number of a tensor of integers; a negative one leaves it open.
    ///
    /// # Errors
    /// For another type.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(tensor) = self.0.remove(name) else { return Ok(None) };
        let number = match &tensor.content {
            Content::Json(value) => value.as_i64(),
            Content::Binary(bytes) => integer(&tensor.datatype, bytes),
        };
        match number.filter(|_| tensor.datatype.contains("INT")) {
            Some(number) => Ok(u64::try_from(number).ok()),
            None => Err(fault(name, format!("one integer, got {}", tensor.datatype))),
        }
    }

    /// As [`Tensors::number`], of 32 bits.
    ///
    /// # Errors
    /// For another type, and for what is larger.
    pub(super) fn small(&mut self, name: &str) -> Result<Option<u32>, Problem> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(fault(name, format!("at most {}, got {number}", u32::MAX))),
        }
    }
}

fn fault(name: &str, what: String) -> Problem {
    let message = format!("input {name:?}: expected {what}");
    Problem::invalid(vec![Fault { field: name.to_owned(), message, kind: "value_error" }])
}

/// The first element, however deep the lists are: shape `[1]` and `[1, 1]` mean the same here.
fn first(mut value: &Value) -> &Value {
    while let Some(inner) = value.as_array().and_then(|list| list.first()) {
        value = inner;
    }
    value
}

/// The first element of a tensor of BYTES: its length, then itself.
fn element(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn integer(datatype: &str, bytes: &[u8]) -> Option<i64> {
    match datatype {
        "INT64" => bytes.first_chunk().map(|b| i64::from_le_bytes(*b)),
        "UINT64" => i64::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok(),
        "INT32" => bytes.first_chunk().map(|b| i64::from(i32::from_le_bytes(*b))),
        "UINT32" => bytes.first_chunk().map(|b| i64::from(u32::from_le_bytes(*b))),
        _ => None,
    }
}

/// A tensor of BYTES, each element behind its length.
pub(super) fn bytes_tensor(elements: &[Bytes]) -> Vec<u8> {
    let mut tensor = Vec::new();
    for element in elements {
        let length = u32::try_from(element.len()).expect("artifacts are bounded far below");
        tensor.extend_from_slice(&length.to_le_bytes());
        tensor.extend_from_slice(element);
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tensors_are_read_from_json_and_from_behind_it() {
        let inputs = json!([
            { "name": "prompt", "datatype": "BYTES", "shape": [1], "parameters": { "binary_data_size": 9 } },
            { "name": "seed", "datatype": "INT64", "shape": [1, 1], "data": [[7]] },
            { "name": "steps", "datatype": "INT32", "shape": [1], "parameters": { "binary_data_size": 4 } },
        ]);
        let binary = [&5_u32.to_le_bytes()[..], b"a cat", &9_i32.to_le_bytes()].concat();
        let mut tensors = Tensors::read(Some(&inputs), &binary).expect("read");
        assert_eq!(tensors.text("prompt").expect("text").as_deref(), Some("a cat"));
        assert_eq!(tensors.number("seed").expect("a number"), Some(7));
        assert_eq!(tensors.small("steps").expect("a number"), Some(9));
        assert_eq!(tensors.small("width").expect("open"), None);
    }

    #[test]
    fn a_tensor_that_is_cut_or_of_another_type_is_told() {
        let cut = json!([{ "name": "prompt", "datatype": "BYTES", "parameters": { "binary_data_size": 9 } }]);
        let problem = Tensors::read(Some(&cut), b"abc").err().expect("cut");
        assert_eq!(problem.message, "input \"prompt\": expected 9 binary bytes, got 3");
        let float = json!([{ "name": "seed", "datatype": "FP32", "data": [1.5] }]);
        let problem = Tensors::read(Some(&float), b"").expect("read").number("seed");
        assert!(problem.expect_err("no integer").message.contains("one integer, got FP32"));
        let (png, other) = (Bytes::from_static(b"png"), Bytes::new());
        assert_eq!(bytes_tensor(&[png, other]), b"\x03\0\0\0png\0\0\0\0");
    }
}
