"""What other programs send, as their published sources and pages have it; the texts are ours.

KoboldAI Lite of July 2026, mikupad of December 2025, SillyTavern of September 2024, RWKV Runner of May 2026,
lm-evaluation-harness of 2026.
"""

PROMPT = "乔一斗坐在井边，"

# its default settings, from a page opened at the server's own address
LITE = {
    "n": 1, "max_context_length": 12288, "max_length": 1536, "rep_pen": 1.05, "temperature": 0.75, "top_p": 0.92,
    "top_k": 100, "top_a": 0, "typical": 1, "tfs": 1, "rep_pen_range": 360, "rep_pen_slope": 0.7,
    "sampler_order": [6, 0, 1, 3, 4, 2, 5], "memory": "", "trim_stop": True, "genkey": "KCPP1234", "min_p": 0,
    "dynatemp_range": 0, "dynatemp_exponent": 1, "smoothing_factor": 0, "smoothing_curve": 1, "nsigma": 0,
    "banned_tokens": [], "render_special": False, "logprobs": False, "replace_instruct_placeholders": True,
    "presence_penalty": 0, "logit_bias": {}, "adaptive_target": -1, "adaptive_decay": 0.9,
    "stop_sequence": ["{{[INPUT]}}", "{{[OUTPUT]}}"], "use_default_badwordsids": False, "bypass_eos": False,
    "prompt": PROMPT,
}  # fmt: skip

MIKUPAD = {
    "prompt": PROMPT, "temperature": 0.7, "presence_penalty": 0, "frequency_penalty": 0, "top_p": 0.95, "top_k": 40,
    "min_p": 0, "stream": True,
}  # fmt: skip
MIKUPAD_LLAMA = MIKUPAD | {
    "model": "", "repeat_penalty": 1.1, "repeat_last_n": 256, "penalize_nl": False, "ignore_eos": False,
    "n_predict": -1, "n_probs": 10, "post_sampling_probs": True, "cache_prompt": True,
}  # fmt: skip
MIKUPAD_KOBOLD = MIKUPAD | {
    "rep_pen": 1.1, "rep_pen_range": 256, "penalize_nl": False, "use_default_badwordsids": False,
    "max_length": 1024, "logprobs": 10,
}  # fmt: skip
MIKUPAD_OPENAI = MIKUPAD | {
    "model": "", "repetition_penalty": 1.1, "repetition_penalty_range": 256, "penalize_nl": False,
    "ban_eos_token": False, "max_tokens": 1024, "logprobs": 10,
}  # fmt: skip

# one object for every backend, under all the names that one of them might read
SILLYTAVERN = {
    "prompt": PROMPT, "model": "fake", "max_new_tokens": 300, "max_tokens": 300, "temperature": 1, "top_p": 1,
    "typical_p": 1, "typical": 1, "sampler_seed": -1, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0,
    "presence_penalty": 0, "top_k": 0, "skew": 0, "min_tokens": 0, "add_bos_token": True, "smoothing_factor": 0,
    "smoothing_curve": 1, "dry_allowed_length": 2, "dry_multiplier": 0, "dry_base": 1.75,
    "dry_sequence_breakers": "[\"\\n\", \":\"]", "dry_penalty_last_n": 0, "max_tokens_second": 0,
    "stopping_strings": ["\nUser:"], "stop": ["\nUser:"], "truncation_length": 8192, "ban_eos_token": False,
    "skip_special_tokens": True, "top_a": 0, "tfs": 1, "mirostat_mode": 0, "mirostat_tau": 5, "mirostat_eta": 0.1,
    "custom_token_bans": "", "banned_strings": [], "api_type": "generic", "api_server": "http://127.0.0.1:8000/",
    "legacy_api": False, "xtc_threshold": 0.1, "xtc_probability": 0, "rep_pen": 1, "rep_pen_range": 0,
    "repetition_penalty_range": 0, "seed": -1, "guidance_scale": 1, "negative_prompt": "", "grammar_string": "",
    "repeat_penalty": 1, "tfs_z": 1, "repeat_last_n": 0, "n_predict": 300, "num_predict": 300, "num_ctx": 8192,
    "mirostat": 0, "ignore_eos": False, "rep_pen_slope": 1, "stream": True,
}  # fmt: skip
SILLYTAVERN_LLAMA = SILLYTAVERN | {
    "api_type": "llamacpp", "n_probs": 10, "samplers": ["top_k", "typical_p", "top_p", "min_p", "temperature"],
}  # fmt: skip
SILLYTAVERN_KOBOLD = SILLYTAVERN | {
    "api_type": "koboldcpp", "sampler_order": [6, 0, 1, 3, 4, 2, 5], "grammar": "", "logprobs": 10,
}  # fmt: skip

RWKV_RUNNER = {
    "prompt": PROMPT, "stream": True, "model": "gpt-3.5-turbo", "max_tokens": 500, "temperature": 1, "top_p": 0.3,
    "presence_penalty": 0, "frequency_penalty": 1, "stop": ["\n\nUser"],
}  # fmt: skip

# log-likelihood of a continuation: token ids, or a text with `tokenized_requests=False`
LM_EVAL_SCORE = {
    "model": "model/final_model", "prompt": [[ord(char) for char in "第一章井"]], "temperature": 0, "max_tokens": 1,
    "logprobs": 1, "seed": 1234, "echo": True,
}  # fmt: skip
LM_EVAL_WRITE = {
    "prompt": PROMPT, "model": "model/final_model", "max_tokens": 256, "temperature": 0, "stop": ["。", "\n\n"],
    "seed": 1234,
}  # fmt: skip
