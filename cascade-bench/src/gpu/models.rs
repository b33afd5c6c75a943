//! Page layouts of real models, as an engine with blocks of 16 tokens keeps their KV cache in bf16.

/// Pages of one model on one GPU.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Model and tensor parallelism.
    pub name: &'static str,
    /// Bytes of one page: one layer, keys or values (both together for MLA), 16 tokens.
    pub page_bytes: usize,
    /// Pages of 16 tokens: layers, times two where keys and values lie apart.
    pub pages: usize,
}

/// 16 tokens x heads x 128 x 2 bytes; MLA: 16 tokens x (512 + 64) x 2 bytes.
pub const MODELS: &[Layout] = &[
    Layout { name: "llama-3.1-8b", page_bytes: 16 * 8 * 128 * 2, pages: 32 * 2 },
    Layout { name: "llama-3-70b-tp1", page_bytes: 16 * 8 * 128 * 2, pages: 80 * 2 },
    Layout { name: "llama-3-70b-tp8", page_bytes: 16 * 128 * 2, pages: 80 * 2 },
    Layout { name: "deepseek-v3-mla", page_bytes: 16 * (512 + 64) * 2, pages: 61 },
];
