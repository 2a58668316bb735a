//! Answers of a rate limit service: no panic, and no more is kept than was sent. A question is
//! framed, whatever its values are.

use ringway::grpc::rate_limit::{Answer, PREFIX_BYTES, Question};

pub fn holds(bytes: &[u8]) {
    let framed = [&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat();
    for input in [bytes, &framed] {
        if let Ok(answer) = Answer::parse(input) {
            let names = answer.limits.iter().map(|limit| limit.name.len()).sum::<usize>();
            let fields = answer.fields.iter().map(|(name, value)| name.len() + value.len());
            // A byte that is not UTF-8 becomes three.
            assert!(names / 3 + fields.sum::<usize>() <= input.len());
        }
    }
    let mut out = Vec::new();
    let mut question = Question::begin(&mut out, "domain");
    for value in bytes.chunks(64) {
        question.descriptor(|descriptor| descriptor.entry("key", value));
    }
    question.end(1);
    let len = u32::from_be_bytes(out[1..PREFIX_BYTES].try_into().unwrap());
    assert_eq!(len as usize, out.len() - PREFIX_BYTES);
}
