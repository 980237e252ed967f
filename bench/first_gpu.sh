#!/usr/bin/env bash
# The first ten minutes on a true GPU: everything that a machine without one cannot tell, in one file to send back.
#
#   bench/first_gpu.sh                        on the first GPU, and with the second where there is one
#   bench/first_gpu.sh --tiny --device cpu    the same steps at a tiny size on the CPU, in a few minutes
#   bench/first_gpu.sh --dry                  prints the steps only: name, seconds it may take, command
#
# Each step has a time limit, and the next one begins whatever became of it. docs/GPU.md says what to look for.
set -uo pipefail
cd "$(dirname "$0")/.."

tiny= dry= device=0 out=build/first_gpu.txt
while [ $# -gt 0 ]; do
    case $1 in
        --tiny) tiny=1 ;;
        --dry) dry=1 ;;
        --device) device=$2; shift ;;
        --out) out=$2; shift ;;
        *) echo "unknown option $1; known: --tiny --dry --device NAME --out FILE" >&2; exit 2 ;;
    esac
    shift
done
export python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
export work="${out%.txt}" HF_HUB_OFFLINE=1
second=1
if [[ $device =~ ^[0-9]+$ ]]; then second=$((device + 1)); fi
cards=${CARDS:-$([ "$device" = cpu ] && echo 2 || $python -c 'import torch; print(torch.cuda.device_count())' 2>/dev/null || echo 0)}

# ---- sizes: the large network as users train it, or one that a processor trains at once
story="--raw_data_path $work/train.json --tokenizer_path $work/vocab.txt --tokenized_data_path $work/tokenized"
small="--model_config config/model_config_demo.json --stride 128"
large="--model_config config/model_config_small.json --stride 512"
bench="--rows 8 32" length=1000 steps=25 writer=config/model_config_small.json
compile_on="--compile on" epochs=18 torchrun_device=
if [ "$tiny" ]; then
    small="--model_config $work/tiny.json --stride 128 --batch_size 32" large=$small
    bench="--network smallest --steps 3" length=20 steps=3 writer=$work/tiny.json epochs=2
fi
if [ "$device" = cpu ]; then compile_on= torchrun_device="--device cpu"; fi
train="$python train.py $story --num_pieces 10 --sample_length 20 --log_step 1 --resume never"
torchrun="$python -m torch.distributed.run --standalone --nproc_per_node=2 train.py $story --num_pieces 10"
torchrun="$torchrun --sample_length 20 --log_step 1 --resume never $torchrun_device"

results=()
step() {  # name, seconds, command
    if [ "$dry" ]; then printf '%s\t%s\t%s\n' "$1" "$2" "$3"; return; fi
    local began=$SECONDS code word
    printf '\n==== %s (at most %s s)\n$ %s\n' "$1" "$2" "$3" >>"$out"
    timeout -k 10 "$2" bash -c "$3" >>"$out" 2>&1 </dev/null
    code=$?
    case $code in 0) word=ok ;; 124 | 137) word="out of time" ;; *) word="failed ($code)" ;; esac
    results+=("$(printf '%-48s %-14s %4d s' "$1" "$word" $((SECONDS - began)))")
    echo "${results[-1]}" | tee -a "$out"
}

stop_and_resume() {  # device: one run without a stop and one that is stopped and goes on; the weights byte by byte
    local run="$1" pid lines
    $run --output_dir "$work/whole" || return 1
    $run --output_dir "$work/parts" &
    pid=$!
    until [ "$(wc -l 2>/dev/null <"$work/parts/log.jsonl" || echo 0)" -ge 4 ] || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -INT $pid 2>/dev/null || echo "the run ended before it could be stopped"
    wait $pid
    lines=$(wc -l <"$work/parts/log.jsonl")
    ${run/--resume never/} --output_dir "$work/parts" || return 1
    echo "stopped after $lines lines of the log, now $(wc -l <"$work/parts/log.jsonl")"
    cmp "$work/whole/final_model/model.safetensors" "$work/parts/final_model/model.safetensors" && echo "same bytes"
}
export -f stop_and_resume

if [ ! "$dry" ]; then
    rm -rf "$work" && mkdir -p "$work" && : >"$out"
    echo '{"n_layer": 1, "n_embd": 32, "n_head": 2, "n_positions": 128}' >"$work/tiny.json"
    { date -u; uname -a; git log -1 --format=%H 2>/dev/null; } >>"$out"
fi

step "the machine and its GPUs" 60 "nvidia-smi 2>&1 | head -40; nvidia-smi topo -m 2>/dev/null | head -20; nproc; free -g | head -2; cc --version | head -1"
step "versions, GPUs as torch sees them, Numba" 120 "$python bench/versions.py"
step "the bundled novel as pieces" 120 "$python clr_ctrl.py data/sample/novel.txt --output $work/train.json &&
    $python make_vocab.py --raw_data_path $work/train.json --vocab_file $work/vocab.txt &&
    $python tokenize_corpus.py $story --num_pieces 10"
step "600 small steps, compiled, with every recompilation" 300 "TORCH_LOGS=recompiles,graph_breaks \
    $train --device $device $small $compile_on --epochs $epochs --output_dir $work/small"
step "training: tokens/s, memory against prediction" 900 "$python bench/bench_train.py --device $device --rounds 1 $bench \
    --competitors hf_bf16 ours ours_muon"
step "the same without torch.compile" 600 "$python bench/bench_train.py --device $device --rounds 1 $bench --compile off \
    --competitors hf_bf16 ours ours_muon"
step "where one step of 8 windows spends its time" 300 "$python bench/bench_train.py --device $device ${bench/8 32/8} --profile muon \
    --steps $steps | cut -c1-220 | tee $work/profile.txt; echo attention kernels:; grep -oiE '[a-z_:]*(flash|efficient|fmha|attention)[a-z_]*' \
    $work/profile.txt | sort | uniq -c"
step "stop and resume, byte by byte" 300 "stop_and_resume '$train --device $device $small --epochs 3 --deterministic'"
step "writing 1 and 10 texts" 600 "$python bench/bench_generate.py --device $device --model_config $writer --length $length --rounds 1 --batches 1 10"
write="$python generate.py --model_path $work/small/final_model --prefix 那天夜里 --nsamples 1 --length 40 --seed 1 --no-cut_loops --precision fp32"
step "the same text on the CPU and here" 180 "$write --device cpu >$work/cpu.txt && $write --device $device >$work/here.txt &&
    cmp $work/cpu.txt $work/here.txt && cat $work/here.txt && echo same text"
if [ "$cards" -ge 2 ]; then
    both=$device,$second
    if [ "$device" = cpu ]; then both=cpu second=cpu; fi
    step "two cards: --device $both, one process for both" 300 "$train --device $both --parallel threads $large --epochs 4 --output_dir $work/two"
    step "two cards: --device $both, a process for each" 300 "$train --device $both $large --epochs 4 --output_dir $work/each"
    step "two cards: two processes of torchrun" 300 "$torchrun $large --epochs 4 --output_dir $work/ranks"
    step "two cards: --shard" 300 "$torchrun $large --epochs 2 --shard --output_dir $work/shard"
    step "the second card alone" 300 "$train --device $second $small --epochs 1 --output_dir $work/second &&
        $write --device $second >$work/second.txt && cmp $work/cpu.txt $work/second.txt && echo same text"
fi

if [ ! "$dry" ]; then
    { echo; echo "==== summary"; printf '%s\n' "${results[@]}"; } >>"$out"
    rm -rf "$work"
    echo "all of it: $out"
fi
