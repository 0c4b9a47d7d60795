//! The smallest valid image and sound, and builders for the blocks that several tools return.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

/// A PNG of one red pixel.
pub const RED_PIXEL_PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";
/// A WAV of eight silent samples, 8 kHz, 8 bit, mono.
pub const SILENCE_WAV: &str = "UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA==";

/// A tool result of one text block.
pub fn text(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

/// A tool result of one text block that says that the tool failed.
pub fn failure(text: impl Into<String>) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// An embedded text resource.
pub fn embedded(uri: &str, mime_type: &str, text: &str) -> ContentBlock {
    ContentBlock::resource(ResourceContents::text(text, uri).with_mime_type(mime_type))
}

pub fn image() -> ContentBlock {
    ContentBlock::image(RED_PIXEL_PNG, "image/png")
}

pub fn audio() -> ContentBlock {
    ContentBlock::audio(SILENCE_WAV, "audio/wav")
}
