"""Options of training."""

import dataclasses

from core.config.options import option


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The training of a model; names as in the TF1 code where the meaning is the same."""

    n_epochs: int = option(20, 'passes over every caption of every training image', minimum=1)
    batch_size: int = option(64, 'captions in a batch', minimum=1)
    batch_by: str = option('sorted', 'captions of a batch: sorted by length, exactly one length '
                           '(the paper), of one length bucket, or several captions of each image, '
                           'whose features are then projected once',
                           choices=('sorted', 'one_length', 'bucket', 'image'))
    bucket_width: int = option(4, 'lengths in a bucket of batch_by=bucket', minimum=1)
    captions_per_image: int = option(5, 'captions of an image in a batch of batch_by=image',
                                     minimum=1)
    update_rule: str = option('adam', 'optimizer', choices=('adam', 'rmsprop', 'momentum', 'sgd'))
    learning_rate: float = option(1e-3, 'at the start, after the warm-up', minimum=0)
    learning_rate_schedule: str = option(
        'constant', 'how the rate falls', choices=('constant', 'exponential', 'cosine', 'plateau')
    )
    learning_rate_decay: float = option(0.8, 'factor of the schedules exponential (an epoch) and '
                                        'plateau', minimum=0, maximum=1)
    plateau_patience: int = option(1, 'validations without a better score before schedule plateau '
                                   'lowers the rate', minimum=1)
    warmup_steps: int = option(0, 'steps over which the rate rises to learning_rate', minimum=0)
    momentum: float = option(0.9, 'of update rule momentum', minimum=0, maximum=1)
    clip_norm: float = option(5.0, 'global norm that gradients are clipped to; 0: no clipping',
                              minimum=0)
    weight_decay: float = option(0.0, 'share of every matrix taken away a step, times the rate '
                                 '(decoupled)', minimum=0)
    precision: str = option('float32', 'type of the products of a training step; the 16-bit ones '
                            'are for GPUs, float16 with a scaled loss',
                            choices=('float32', 'bfloat16', 'float16'))
    weight_averaging: float = option(0.0, 'decay a step of the moving average of the variables '
                                     'that is validated and kept; 0: none', minimum=0,
                                     maximum=0.99999)
    train_embedding: bool = option(True, 'word vectors are trained; false keeps them, for '
                                   'pretrained ones')
    anneal_epochs: float = option(0.0, 'epochs over which lambda_e and temperature go from their '
                                  'start to their value, and scheduled_sampling from 0; 0: no '
                                  'annealing', minimum=0)
    lambda_e_start: float = option(0.0, 'lambda_e at the start of the annealing; 0: as lambda_e',
                                   minimum=0)
    temperature_start: float = option(0.0, 'temperature at the start of the annealing; 0: as '
                                      'temperature', minimum=0)
    finetune_from: str = option('', 'first layer of the encoder that is trained too; empty: none')
    finetune_rate: float = option(0.1, "the encoder's share of the learning rate", minimum=0)
    augment: bool = option(True, 'fine-tuning sees images flipped and cropped at random')
    validate_every: int = option(1, 'epochs between validations on dev by free-running decoding',
                                 minimum=1)
    validation_metric: str = option('Bleu_4', 'score that picks the best model',
                                    choices=('Bleu_4', 'METEOR', 'CIDEr', 'ROUGE_L'))
    validation_limit: int = option(0, 'dev images that a validation decodes; 0: all', minimum=0)
    patience: int = option(5, 'validations without a better score before training stops; 0: never',
                           minimum=0)
    print_every: int = option(100, 'steps between lines of progress', minimum=1)
    save_every: int = option(1, 'epochs between checkpoints', minimum=1)
    save_minutes: float = option(5.0, 'minutes between checkpoints inside an epoch; 0: none',
                                 minimum=0)
    keep_checkpoints: int = option(2, 'checkpoints kept besides the best model', minimum=1)
    seed: int = option(1, 'of initial weights, order of batches, dropout and draws', minimum=0,
                       maximum=2**31 - 1)
    tensorboard_images: int = option(3, 'dev images whose attention TensorBoard shows; 0: none',
                                     minimum=0)
