"""Two tiny random models of different families, with tokenizers of their own, saved to be loaded by path."""

from pathlib import Path

# Small, but with every kind of text that the tests ask about: words, digits, accents, Chinese, emoji, code.
TEXT = """
The harbour master of Velmora wrote the day's tide into the ledger before the bell rang twice.
Ilse Brandvik keeps the spare key of the boat house under the third stone from the door.
Every sample from the northern mine is weighed, numbered and stored in a cedar box for nine years.
The meeting moved to Thursday because the bridge over the Tarn was closed for repairs.
Who keeps the key? Where is the ledger? When was the bridge closed? What colour is the door?
You are a helpful assistant. Answer the question with the shortest phrase that is right.
Temperatures of 12, 345 and 6789 degrees were noted; the price rose from 1,204 to 5,873 crowns.
Müller's café serves crème brûlée, smörgås and piñatas on Šárka Street; naïve façade, coöperate.
def area(width: int, height: int) -> int:
    return width * height  # square metres
for item in items:
    if item["name"] != 'none':
        print(f"{item['name']}: {item['price']:.2f}")
{"name": "lamp", "price": 17.5, "tags": ["brass", "old"], "sold": false}
图书馆在河边，星期三上午九点开门。谁有钥匙？钥匙在第三块石头下面。
今日は天気がいいですね。駅はどこですか。
The answer is blue. The answer is seven. The answer is on the second floor of the old mill.
Weather: 🌧️ then ☀️. Team: 👩‍🔬👨‍🚀. Flags: 🇨🇭🇯🇵. Done ✅
"""

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tiny_sharer(directory: Path) -> Path:
    """A random Qwen2: 4 layers, 2 key/value heads of 16, width 64, about 500 tokens."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    vocabulary = _save_tokenizer(directory, vocabulary=512)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        use_cache=True,
    )
    torch.manual_seed(20)
    Qwen2ForCausalLM(config).eval().save_pretrained(directory)
    return directory


def save_tiny_receiver(directory: Path) -> Path:
    """A random Llama: 6 layers, 1 key/value head of 16, width 48, about 400 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = _save_tokenizer(directory, vocabulary=400, digits=True)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        rope_theta=100_000.0,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        use_cache=True,
    )
    torch.manual_seed(21)
    LlamaForCausalLM(config).eval().save_pretrained(directory)
    return directory


def _save_tokenizer(directory: Path, vocabulary: int, digits: bool = False) -> int:
    """Train a byte-level BPE on `TEXT`, save it and return the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if digits:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), byte_level]
        )
    else:
        tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())
