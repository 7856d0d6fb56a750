"""absl flags and its log; flax examples print like this."""

from absl import app, flags, logging
from pretended import Training

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 32, "Batch size.")
flags.DEFINE_float("learning_rate", 0.05, "Peak learning rate.", lower_bound=0.0)
flags.DEFINE_integer("num_epochs", 20, "Number of epochs.")
flags.DEFINE_integer("rng_seed", 0, "Seed.")
flags.DEFINE_string("workdir", None, "Directory to store logs.")
flags.DEFINE_bool("half_precision", False, "Use half precision.")


def main(_):
    training = Training(FLAGS.batch_size, FLAGS.learning_rate, FLAGS.rng_seed)
    for epoch in range(1, FLAGS.num_epochs + 1):
        training.epoch()
        logging.info(
            "epoch:% 3d, train_loss: %.4f, train_accuracy: %.2f, test_loss: %.4f, test_accuracy: %.2f",
            *(epoch, training.loss, 100 * training.accuracy + 2, training.loss, 100 * training.accuracy),
        )


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    app.run(main)
