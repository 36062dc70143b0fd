#![allow(dead_code)]
mod codec;
mod header;
mod tiles;
mod watermark;
fn main() {}
