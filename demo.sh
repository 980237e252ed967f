#!/usr/bin/env bash
# From the bundled novel to three samples: the whole way in six commands. `make demo` calls this.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-build/demo}
rm -rf "$out" && mkdir -p "$out"

echo "1. clean the novel";            python clr_ctrl.py data/sample/novel.txt --output "$out/train.json"
echo "2. build its vocabulary";       python make_vocab.py --raw_data_path "$out/train.json" --vocab_file "$out/vocab.txt"
echo "3. cut it into pieces";         python tokenize_corpus.py --config config/demo.yaml --raw_data_path "$out/train.json" --tokenizer_path "$out/vocab.txt" --tokenized_data_path "$out/tokenized"
echo "4. train";                      python train.py --config config/demo.yaml --tokenizer_path "$out/vocab.txt" --tokenized_data_path "$out/tokenized" --output_dir "$out/model"
echo "5. measure";                    python eval.py --model_path "$out/model/best_model" --tokenized_data_path "$out/tokenized"
echo "6. write";                      python generate.py --config config/demo.yaml --model_path "$out/model/best_model" --prefix "[CLS]那天夜里没有月亮。一斗裹着一件破棉袄坐在井沿上，" --save_samples --save_samples_path "$out/samples"

python - "$out" <<'PY'
import json, sys
from pathlib import Path

out = Path(sys.argv[1])
losses = [json.loads(line)["valid_loss"] for line in open(out / "model/log.jsonl", encoding="utf-8") if "valid_loss" in line]
print(f"held-out loss: {losses[0]:.3f} nats per token at the start, {min(losses):.3f} at the end ({losses[0] - min(losses):.3f} below)")
for name in ("train.json", "vocab.txt", "tokenized", "model/best_model", "model/final_model", "samples/samples.txt"):
    print(f"  {out / name}")
print(f"how it learned, in a browser: {out / 'model/training.html'}")
PY

cat <<'WORDS'

Now your own novel:
  python clr_ctrl.py my_novel.txt
  python train.py --raw --config config/laptop.yaml    # with a GPU: without --config; --plan says how long
Then python generate.py writes. README.md and README_zh.md tell the rest.
WORDS
